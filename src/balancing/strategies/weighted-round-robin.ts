import { instanceOf, validateOptions } from '../../internal/validate.ts';
import { type BalancingStrategy, type Candidate, fromRandomStart, type PickRequest } from '../strategy.ts';
import { LoadReports } from './load-reports.ts';
import { firstAccepted } from './preference-queue.ts';
import { SmoothWrr, WrrEntry } from './smooth-wrr.ts';
import { weightOf } from './weight.ts';

export interface WeightedRoundRobinOptions {
  /** Weights by what instances report of their load, in place of those that they were registered with. */
  loadReports?: LoadReports;
}

/** How far a weight by report may lie from the mean, either way. As in gRPC's implementations. */
const MAX_RATIO = 10;

/**
 * Each in proportion to weight, spread as evenly as can be: weights 5, 1, 1 give a a b a c a a, from a random
 * start among equals. O(1) a pick. Source: nginx, 'Upstream: smooth weighted round-robin balancing' (2012).
 *
 * With `loadReports` each gets the share that it can bear, and one without a usable report as much as the mean of
 * the others; with fewer than two reports weights are those of the instances. Source: gRFC A58.
 *
 * @example
 * const loadReports = new LoadReports();
 * const balancer = new LoadBalancer({ discovery, strategy: weightedRoundRobin({ loadReports }) });
 * const lease = await balancer.acquire('user-service');
 * // … and when the answer has come, with what it says of the load:
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
        : weightsByReport(candidates, loadReports, () => now);
    const order = new SmoothWrr(weigh, loadReports === undefined);
    const turns = fromRandomStart(candidates, random).map(
      (candidate, index) => new WrrEntry(candidate, index),
    );
    for (const turn of turns) order.add(turn);
    const pick = firstAccepted(order);
    let next = 0;

    return (request: PickRequest): Candidate | undefined => {
      now = request.now;
      // Weights change as time passes, untold: one is looked at for each pick, in turn.
      order.update(turns[next]!);
      next = (next + 1) % turns.length;
      const picked = pick(request);
      if (picked !== undefined) order.take(picked);
      return picked?.candidate;
    };
  };
}

/** Relative to the mean, so that all weights are of one scale before there are reports, and after. */
function weightsByReport(
  candidates: readonly Candidate[],
  loadReports: LoadReports,
  now: () => number,
): (turn: WrrEntry) => number {
  const usual = candidates.reduce((sum, { instance }) => sum + instance.weight, 0) / candidates.length || 1;
  const known = new Map<WrrEntry, number>();
  let sum = 0;
  return (turn) => {
    const reported = loadReports.weightOf(turn.candidate, now());
    sum += reported - (known.get(turn) ?? 0);
    if (reported > 0) known.set(turn, reported);
    else known.delete(turn);
    if (known.size < 2) return weightOf(turn.candidate);
    const ratio = reported === 0 ? 1 : reported / (sum / known.size);
    return usual * turn.candidate.slowStartFactor * Math.min(MAX_RATIO, Math.max(1 / MAX_RATIO, ratio));
  };
}
