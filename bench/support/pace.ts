import { percentile } from './measure.ts';

export interface Pace {
  readonly perSecond: number;
  /** Milliseconds within which 99 % of them are done. */
  readonly p99: number;
}

/** Acts again and again for a while, a number of workers at once, each of which is told which one it is. */
export async function measurePace(
  duration: number,
  workers: number,
  act: (worker: number) => Promise<unknown>,
): Promise<Pace> {
  const latencies: number[] = [];
  const begun = performance.now();
  const work = async (worker: number) => {
    for (let at = begun; at < begun + duration; ) {
      await act(worker);
      const now = performance.now();
      latencies.push(now - at);
      at = now;
    }
  };
  await Promise.all(Array.from({ length: workers }, (_, worker) => work(worker)));
  const seconds = (performance.now() - begun) / 1_000;
  return { perSecond: latencies.length / seconds, p99: percentile(latencies, 0.99) };
}
