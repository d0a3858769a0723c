import { CircuitBreaker, resilient } from '../../src/index.ts';
import { exponential } from './chance.ts';
import { simulate } from './harness.ts';
import { count, percent, type Report } from './report.ts';

export interface Judgement {
  /** Calls that the breaker let through, and the openings. */
  calls: number;
  openings: number;
  /** Seconds from the moment when all calls fail until it opens; undefined if it does not within ten minutes. */
  opensAfter: number | undefined;
}

export interface JudgementOptions {
  seed?: number;
  /** The breaker; made while the clock is that of the simulation. */
  breaker: () => CircuitBreaker;
  /** Calls a second of this process, at random moments. */
  rate: number;
  /** The share of the calls that fail, by chance. */
  failures: number;
  hours: number;
}

/** How long after the hours of chance all calls fail, at most, in milliseconds. */
const OUTAGE = 600_000;

/** A process whose calls fail now and then, for hours, and then all of them. */
export function judge({
  seed = 1,
  breaker: make,
  rate,
  failures,
  hours,
}: JudgementOptions): Promise<Judgement> {
  return simulate(seed, async ({ sleep }) => {
    const breaker = make();
    let openings = 0;
    let calls = 0;
    let share = failures;
    breaker.on('open', () => {
      openings++;
    });
    const call = async () => {
      if (Math.random() < share) throw new Error('503');
    };
    const callUntil = async (end: number, over = () => false) => {
      for (;;) {
        await sleep(exponential(1000 / rate));
        if (performance.now() >= end || over()) return;
        calls++;
        await breaker.execute(call).catch(() => {});
      }
    };
    await callUntil(hours * 3_600_000);
    const judgement = { calls, openings };
    share = 1;
    const began = performance.now();
    await callUntil(began + OUTAGE, () => breaker.state === 'open');
    const opensAfter = breaker.state === 'open' ? (performance.now() - began) / 1000 : undefined;
    return { ...judgement, opensAfter };
  });
}

const RATES = [0.4, 1, 2, 4, 40, 400];

const BREAKERS = [
  { name: 'resilient()', make: () => resilient().circuitBreaker! },
  { name: 'the last 10 s only', make: () => new CircuitBreaker({ failureRatio: 0.5, window: 10_000 }) },
  {
    name: 'the last 20 calls only',
    make: () => new CircuitBreaker({ failureRatio: 0.5, window: { calls: 20 } }),
  },
];

export async function report(): Promise<Report> {
  const rows: string[][] = [];
  for (const rate of RATES) {
    for (const { name, make } of BREAKERS) {
      const hours = rate > 40 ? 2 : 24;
      const { calls, openings, opensAfter } = await judge({ breaker: make, rate, failures: 0.1, hours });
      rows.push([
        `${rate}`,
        name,
        count(calls),
        `${((openings * 24) / hours).toFixed(0)}`,
        opensAfter === undefined ? 'never' : `${opensAfter.toFixed(1)} s`,
      ]);
    }
  }
  return {
    title: 'A breaker whose window follows the rate',
    source: 'no figures; the rule is ours',
    assumed:
      `One process, calls at random moments of which ${percent(0.1, 0)} fail by chance, for a day (at 400 a second two hours), ` +
      'and then all of them. Each breaker opens at half of at least 20 calls.',
    head: ['calls a second', 'window', 'calls', 'openings in a day by chance', 'opens after, if all fail'],
    rows,
    plots: {},
  };
}
