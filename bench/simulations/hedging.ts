import { Hedge, type HedgeOptions } from '../../src/policies/hedge.ts';
import { simulate } from './harness.ts';
import { percentLabel, plot } from './plot.ts';
import { milliseconds, percent, percentile, type Report } from './report.ts';

export interface Reads {
  /** Milliseconds of each read of a thousand keys, in rising order. */
  latencies: number[];
  /** Requests in excess of one for each server and read, as a share. */
  extra: number;
}

/** Milliseconds after which the published benchmark hedges, and the share of requests that take longer. */
const DELAY = 10;
const SLOW = 0.02;
/** Of a read without hedging, published: milliseconds at the 99.9th percentile. */
const TAIL = 1_800;

/**
 * How long one server takes. The paper does not tell, so it is a power law through the two points that it does:
 * 2 % of requests take longer than 10 ms, and of the slowest of 100 requests the 99.9th percentile is 1,800 ms.
 */
function serverLatency(servers: number): () => number {
  const exponent = Math.log(SLOW / (1 - 0.999 ** (1 / servers))) / Math.log(TAIL / DELAY);
  return () => DELAY * (SLOW / (1 - Math.random())) ** (1 / exponent);
}

/**
 * Runs reads one after the other. Each calls all servers at once, and is done when the last has
 * responded.
 */
export async function reads(
  hedging: HedgeOptions | undefined,
  { reads: count, servers = 100, seed = 1 }: { reads: number; servers?: number; seed?: number },
): Promise<Reads> {
  return simulate(seed, async ({ sleep }) => {
    const latency = serverLatency(servers);
    let requests = 0;
    const ask = () => {
      requests++;
      return sleep(latency());
    };
    const hedge = hedging && new Hedge(hedging);
    const latencies: number[] = [];
    for (let read = 0; read < count; read++) {
      const startedAt = performance.now();
      await Promise.all(Array.from({ length: servers }, () => (hedge ? hedge.execute(ask) : ask())));
      latencies.push(performance.now() - startedAt);
    }
    return { latencies: latencies.sort((a, b) => a - b), extra: requests / (count * servers) - 1 };
  });
}

const KINDS: [name: string, hedging: HedgeOptions | undefined, published: string][] = [
  ['no hedging', undefined, '1,800 ms'],
  ['after 10 ms', { delay: DELAY }, '74 ms, 2 % more'],
  ['after the 95th percentile', { percentile: 0.95 }, 'about 5 % more'],
];
const READS = 10_000;

export async function report(): Promise<Report> {
  const measured: { name: string; published: string; result: Reads }[] = [];
  for (const [name, hedging, published] of KINDS) {
    measured.push({ name, published, result: await reads(hedging, { reads: READS }) });
  }
  const shares = [0.5, 0.75, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999];
  return {
    title: 'Reading a thousand keys from a hundred servers',
    source: "Dean and Barroso, 'The Tail at Scale' (CACM 2013)",
    assumed:
      'One request of ten keys to each server; a read is done when the last has answered. How long a server ' +
      'takes is not published: a power law through the two published points, 2 % of requests beyond 10 ms and ' +
      'the 1,800 ms without hedging, so that the first row and the 2 % are given and the rest is found. ' +
      'Replicas are slow independently of one another.',
    head: ['hedge', 'p50', 'p99', 'p99.9', 'more requests', 'published'],
    rows: measured.map(({ name, published, result: { latencies, extra } }) => [
      name,
      ...[0.5, 0.99, 0.999].map((share) => milliseconds(percentile(latencies, share))),
      percent(extra),
      published,
    ]),
    plots: {
      hedging: plot({
        title: 'Time to read from a hundred servers, with and without hedging',
        x: { label: 'share of reads that were at least as fast', scale: 'tail', format: percentLabel },
        y: { label: 'ms', scale: 'log', from: 1, to: 10_000 },
        series: measured.map(({ name, result }) => ({
          name,
          points: shares.map((share) => [share, percentile(result.latencies, share)]),
        })),
      }),
    },
  };
}
