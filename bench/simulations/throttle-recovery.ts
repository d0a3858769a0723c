import { compose, Retry, Timeout } from '../../src/index.ts';
import { AdaptiveThrottle } from '../../src/policies/adaptive-throttle.ts';
import { arrivals, exponential } from './chance.ts';
import { simulate } from './harness.ts';
import { plot } from './plot.ts';
import { count, mean, percent, type Report } from './report.ts';
import { Server } from './server.ts';

export interface RecoveryOptions {
  seed?: number;
  /** Processes that call the server, each with a throttle of its own. */
  processes: number;
  /** Calls a second during the peak. */
  peak: number;
  /** Milliseconds that calls are counted for; default: that of AdaptiveThrottle. False for no throttle at all. */
  window?: number | false;
}

export interface Recovery {
  /** The share that succeeded of the calls begun in each second after the peak. */
  success: number[];
  /** Calls that came to the server a second during the peak. */
  load: number;
}

const DEMAND = 40;
const CAPACITY = 64;
const WORKERS = 8;
const BEFORE = 20;
const PEAK = 30;
const AFTER = 20;

/** A server that more calls, each tried three times, make late for all of them, until they become fewer. */
export async function recovery({ seed = 1, processes, peak, window }: RecoveryOptions): Promise<Recovery> {
  return simulate(seed, async (world) => {
    const server = new Server(world, {
      workers: WORKERS,
      maxQueue: 2 * CAPACITY,
      serviceTime: () => exponential((1000 * WORKERS) / CAPACITY),
    });
    const clients = Array.from({ length: processes }, () => {
      const timeout = new Timeout(1000);
      const retry = new Retry({ maxAttempts: 3 });
      if (window === false) return compose(retry, timeout);
      return compose(retry, new AdaptiveThrottle(window === undefined ? {} : { window }), timeout);
    });
    const after = Array.from({ length: AFTER }, () => ({ calls: 0, succeeded: 0 }));
    const arrive = () => {
      const counts = after[Math.floor(performance.now() / 1000) - BEFORE - PEAK];
      if (counts !== undefined) counts.calls++;
      clients[Math.floor(Math.random() * processes)]!.execute(() => server.call()).then(
        () => {
          if (counts !== undefined) counts.succeeded++;
        },
        () => {},
      );
    };
    await arrivals(world, DEMAND, 1000 * BEFORE, arrive);
    const receivedBefore = server.received;
    await arrivals(world, peak, 1000 * PEAK, arrive);
    const load = (server.received - receivedBefore) / PEAK;
    await arrivals(world, DEMAND, 1000 * AFTER, arrive);
    await world.sleep(10_000);
    return { success: after.map(({ calls, succeeded }) => (calls === 0 ? 1 : succeeded / calls)), load };
  });
}

export const PROCESSES = [1, 5, 20, 100];
export const PEAKS = [80, 320];

/** The share of calls that succeeded from ten seconds after the peak on. */
export function recovered({ success }: Recovery): number {
  return mean(success.slice(10));
}

export async function report(): Promise<Report> {
  const rows: string[][] = [];
  const series: { name: string; points: [number, number][] }[] = [];
  for (const peak of PEAKS) {
    for (const processes of PROCESSES) {
      const none = await recovery({ processes, peak, window: false });
      const long = await recovery({ processes, peak, window: 120_000 });
      const ours = await recovery({ processes, peak });
      rows.push([
        String(peak),
        String(processes),
        ...[none, long, ours].map((result) => percent(recovered(result), 0)),
        ...[none, long, ours].map(({ load }) => count(load)),
      ]);
      if (peak !== 80) continue;
      series.push({
        name: `${processes} processes`,
        points: ours.success.map((share, second): [number, number] => [second, share]),
      });
    }
  }
  return {
    title: 'Adaptive throttling: a server that can recover does',
    source:
      "'Site Reliability Engineering' (2016) counts calls for two minutes, and publishes nothing on this",
    assumed:
      'A server that can take 64 calls a second and queues two seconds of them, called 40 times a second, for 30 s 80 ' +
      'or 320 times, and 40 times again; calls are tried three times, without a budget, and given up after a ' +
      'second, which the server does not notice. Success: 10 s to 20 s after the peak.',
    head: [
      'peak',
      'processes',
      'no throttle',
      'two minutes',
      'default',
      'load: no throttle',
      'two minutes',
      'default',
    ],
    rows,
    plots: {
      'throttle-recovery': plot({
        title: 'Success after a peak, behind throttles with their default window',
        x: { label: 'seconds after the peak', from: 0, to: 20 },
        y: { label: 'success', from: 0, to: 1, format: (share) => percent(share, 0) },
        series,
      }),
    },
  };
}
