import { instanceOf, validateOptions } from '../../internal/validate.ts';
import { type BalancingStrategy, type Candidate, type PickRequest, rotateRandomly } from '../strategy.ts';
import { LoadReports } from './load-reports.ts';
import { buildQueuePicker } from './preference-queue.ts';
import { SmoothWrr, WrrEntry } from './smooth-wrr.ts';
import { weightOf } from './weight.ts';

export interface WeightedRoundRobinOptions {
  /**
   * Weights by the load that instances report, in place of those that they were registered with.
   */
  loadReports?: LoadReports | undefined;
}

/**
 * The factor by which a reported weight may lie above or below the mean, as in gRPC's
 * implementations.
 */
const MAX_RATIO = 10;

/**
 * Picks each candidate in proportion to its weight, and spreads the picks evenly: weights 5, 1, 1
 * give a a b a c a a, from a random start among equals. O(1) a pick. Source: nginx, 'Upstream:
 * smooth weighted round-robin balancing' (2012).
 *
 * With `loadReports` each candidate gets the share that it can bear, and one without a usable
 * report as much as the mean of the others. With fewer than two reports the weights are those of
 * the instances. Source: gRFC A58.
 *
 * @example
 * const loadReports = new LoadReports();
 * const balancer = new LoadBalancer({ discovery, strategy: weightedRoundRobin({ loadReports }) });
 * const lease = await balancer.acquire('user-service');
 * // … and when the response has come, with the load that it reports:
 * loadReports.report(lease.candidate, { cpuUtilization: 0.4, qps: 120 });
 */
export function weightedRoundRobin(options: WeightedRoundRobinOptions = {}): BalancingStrategy {
  validateOptions('weightedRoundRobin', options, { loadReports: instanceOf(LoadReports, 'a LoadReports') });
  const { loadReports } = options;

  return (candidates, { random }) => {
    let now = 0;
    const weigh =
      loadReports === undefined
        ? ({ candidate }: WrrEntry) => weightOf(candidate)
        : buildReportWeights(candidates, loadReports, () => now);
    const queue = new SmoothWrr(weigh, loadReports === undefined);
    const entries = rotateRandomly(candidates, random).map(
      (candidate, index) => new WrrEntry(candidate, index),
    );
    for (const entry of entries) queue.add(entry);
    const pick = buildQueuePicker(queue);
    let next = 0;

    return (request: PickRequest): Candidate | undefined => {
      now = request.now;
      // Weights change with time and without notice: each pick updates one candidate, in turn.
      queue.update(entries[next]!);
      next = (next + 1) % entries.length;
      const picked = pick(request);
      if (picked !== undefined) queue.take(picked);
      return picked?.candidate;
    };
  };
}

/**
 * Weighs by reports, relative to the mean, so that weights have one scale before there are reports
 * and after.
 */
function buildReportWeights(
  candidates: readonly Candidate[],
  loadReports: LoadReports,
  now: () => number,
): (entry: WrrEntry) => number {
  const meanWeight =
    candidates.reduce((sum, { instance }) => sum + instance.weight, 0) / candidates.length || 1;
  const known = new Map<WrrEntry, number>();
  let sum = 0;
  return (entry) => {
    const reported = loadReports.weightOf(entry.candidate, now());
    sum += reported - (known.get(entry) ?? 0);
    if (reported > 0) known.set(entry, reported);
    else known.delete(entry);
    if (known.size < 2) return weightOf(entry.candidate);
    const ratio = reported === 0 ? 1 : reported / (sum / known.size);
    return meanWeight * entry.candidate.slowStartFactor * Math.min(MAX_RATIO, Math.max(1 / MAX_RATIO, ratio));
  };
}
