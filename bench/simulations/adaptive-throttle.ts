import { AdaptiveThrottle } from '../../src/policies/adaptive-throttle.ts';
import { arrivals } from './chance.ts';
import { simulate } from './harness.ts';
import { plot } from './plot.ts';
import { percent, type Report, times } from './report.ts';
import { Server } from './server.ts';

export interface Throttled {
  /** Calls that came to the backend, as a multiple of what it can take. */
  load: number;
  /** Calls that it took on, likewise. */
  accepted: number;
}

export interface ThrottleOptions {
  seed?: number;
  clients?: number;
  /** Calls that the backend can take a second. */
  capacity?: number;
  /** Milliseconds that calls are counted for. */
  window?: number;
  /** Milliseconds to measure for, after twice as long to settle. */
  measure?: number;
}

/** Clients that call a backend so many times as often as it can take; each throttles by itself, unless k is undefined. */
export async function throttled(
  demand: number,
  k: number | undefined,
  options: ThrottleOptions = {},
): Promise<Throttled> {
  const { seed = 1, clients = 10, capacity = 50, window, measure = 120_000 } = options;
  return simulate(seed, async (world) => {
    const serviceTime = 100;
    const workers = (capacity * serviceTime) / 1000;
    const server = new Server(world, { workers, maxQueue: workers, serviceTime: () => serviceTime });
    const throttles = Array.from({ length: clients }, () =>
      k === undefined ? undefined : new AdaptiveThrottle({ k, ...(window !== undefined && { window }) }),
    );
    let accepted = 0;
    const backend = () =>
      server.call().then(() => {
        accepted++;
      });
    const arrive = () => {
      const throttle = throttles[Math.floor(Math.random() * clients)];
      (throttle === undefined ? backend() : throttle.execute(backend)).catch(() => {});
    };
    await arrivals(world, demand * capacity, 2 * measure, arrive);
    const before = { received: server.received, accepted };
    await arrivals(world, demand * capacity, measure, arrive);
    const possible = (capacity * measure) / 1000;
    return {
      load: (server.received - before.received) / possible,
      accepted: (accepted - before.accepted) / possible,
    };
  });
}

/** Calls that the backend rejected for each call that it accepted. */
export function rejectedPerAccepted({ load, accepted }: Throttled): number {
  return load / accepted - 1;
}

const DEMANDS = [1, 2, 5, 10];

export async function report(): Promise<Report> {
  const rows: string[][] = [];
  const lines: Record<string, [number, number][]> = { 'not throttled': [], 'K = 2': [], 'K = 1.1': [] };
  for (const demand of DEMANDS) {
    const free = await throttled(demand, undefined);
    const two = await throttled(demand, 2);
    const low = await throttled(demand, 1.1);
    lines['not throttled']!.push([demand, free.load]);
    lines['K = 2']!.push([demand, two.load]);
    lines['K = 1.1']!.push([demand, low.load]);
    if (demand === 1) continue;
    rows.push([
      times(demand, 0),
      times(free.load),
      times(two.load),
      times(2),
      percent(two.accepted),
      rejectedPerAccepted(two).toFixed(2),
      '1',
      rejectedPerAccepted(low).toFixed(2),
      '0.1',
    ]);
  }
  return {
    title: 'Adaptive throttling: load at an overloaded backend',
    source: "'Site Reliability Engineering' (2016), chapter 21, 'Handling Overload'",
    assumed:
      'Ten clients, the default window of two seconds, measured for two minutes after four. Demand, load and accepted calls ' +
      'as multiples of what the backend can take; the last columns are calls that it rejected for each that it took.',
    head: [
      'demand',
      'not throttled',
      'K = 2',
      'published',
      'accepted',
      'rejected, K = 2',
      'published',
      'rejected, K = 1.1',
      'published',
    ],
    rows,
    plots: {
      'adaptive-throttle': plot({
        title: 'Load at a backend whose clients throttle themselves',
        x: { label: 'demand, as a multiple of what the backend can take', from: 1 },
        y: { label: 'load, likewise', from: 0 },
        series: Object.entries(lines).map(([name, points]) => ({ name, points })),
      }),
    },
  };
}
