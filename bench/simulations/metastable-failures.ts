import {
  type Backend,
  type ContenderName,
  type Course,
  PROCESS_LABELS,
  plotSuccess,
  runAll,
  runProcesses,
  successAfter,
  successLine,
} from './client-processes.ts';
import type { Series } from './plot.ts';
import type { Report } from './report.ts';

/** For some seconds a server has fewer processors than its two. */
export interface Cut {
  processors: number;
  seconds: number;
  /** Milliseconds between two calls, of all processes together. */
  interval: number;
  /** Whether the server was seen to recover without help. */
  recovers: boolean;
}

/**
 * The four experiments of the artefact, with the same shares. It makes a call every 75 µs, and
 * every 100 µs in the last.
 */
export const CUTS: readonly Cut[] = [
  { processors: 0.45, seconds: 10, interval: 7.5, recovers: true },
  { processors: 0.4, seconds: 10, interval: 7.5, recovers: false },
  { processors: 0.4, seconds: 9, interval: 7.5, recovers: true },
  { processors: 0.4, seconds: 10, interval: 10, recovers: true },
];

const PROCESSORS = 2;
const CUT_AT = 10;
const SECONDS = 50;
/**
 * Milliseconds of one processor that a call is, on average, so that a call every 7.5 ms is 37.5 %
 * of what the server can do: the one thing that the artefact leaves open. With 37 to 38 % all four
 * experiments end as published, with 36 % or 39 % not all do.
 */
const WORK = 0.375 * PROCESSORS * 7.5;

/**
 * A server that takes one call after the other and finishes all of them, however long ago their
 * callers have given up.
 */
function queueingServer({ processors, seconds }: Cut): Backend {
  const from = 1_000 * CUT_AT;
  const to = from + 1_000 * seconds;
  const before = PROCESSORS * from;
  const within = processors * (to - from);
  /** The work that the processors can have done up to a time, in milliseconds of one processor. */
  const doneBy = (time: number) =>
    PROCESSORS * (Math.min(time, from) + Math.max(0, time - to)) +
    processors * (Math.min(Math.max(time, from), to) - from);
  /** The time at which the processors can have done this work. */
  const timeOf = (done: number) => {
    if (done <= before) return done / PROCESSORS;
    if (done <= before + within) return from + (done - before) / processors;
    return to + (done - before - within) / PROCESSORS;
  };
  let accepted = 0;
  return () => {
    const now = performance.now();
    accepted = Math.max(accepted, doneBy(now)) + WORK * (0.5 + Math.random());
    return timeOf(accepted) - now;
  };
}

/** Client processes that call a server which loses most of its capacity for a while. */
export function cutCapacity(
  cut: Cut,
  contender: ContenderName,
  processes: number,
  seed: number,
): Promise<Course> {
  return runProcesses({
    seed,
    contender,
    processes,
    demand: { seconds: SECONDS, rateAt: () => 1_000 / cut.interval, gap: () => cut.interval },
    backend: () => queueingServer(cut),
  });
}

/** The share of calls that succeed 10 to 20 s after the server has its capacity back. */
export function successAfterCut({ seconds }: Cut, course: Course): number {
  return successAfter(course, CUT_AT + seconds);
}

const SEEDS = [1, 2, 3];
const NAMES = [
  'five attempts at once',
  'with a RetryBudget',
  'resilient()',
  'ServiceClient, 1 instance',
  'ServiceClient, 4 instances',
] satisfies ContenderName[];
const PLOTTED: ContenderName[] = ['five attempts at once', 'resilient()', 'ServiceClient, 1 instance'];

export async function report(): Promise<Report> {
  const rows: string[][] = [];
  const series: Series[] = [];
  for (const cut of CUTS) {
    const { processors, seconds, interval, recovers } = cut;
    const slower = interval === CUTS[0]!.interval ? '' : ', ¾ of the calls';
    for (const name of NAMES) {
      const { cells, courses } = await runAll(
        SEEDS,
        (processes, seed) => cutCapacity(cut, name, processes, seed),
        (course) => successAfterCut(cut, course),
      );
      const published = name !== 'five attempts at once' ? '–' : recovers ? 'recovers' : 'does not recover';
      rows.push([`${processors} for ${seconds} s${slower}`, name, ...cells, published]);
      if (!recovers && PLOTTED.includes(name)) series.push(successLine(name, courses));
    }
  }
  return {
    title: 'A server that loses most of its capacity for some seconds',
    source:
      "Huang et al., 'Metastable Failures in the Wild' (OSDI '22), section 5, and its artefact: MongoDB on two processors, five attempts " +
      'of 3 s, one after the other',
    assumed:
      'The server takes one call after the other and works on what timed out, too. A call every 7.5 ms in place of 75 µs, which is 37.5 % of its ' +
      'capacity: the artefact does not say how much it is, and with 37 to 38 % all four experiments end as published. Success of the calls begun ' +
      '10 to 20 s after the capacity is back: the mean of three runs, the worst in brackets.',
    head: ['processors of two', 'client', ...PROCESS_LABELS, 'published'],
    rows,
    plots: {
      'metastable-failures': plotSuccess(
        'A hundred client processes and a server with a fifth of its capacity for ten seconds',
        SECONDS,
        series,
        { from: CUT_AT, to: CUT_AT + 10, label: 'a fifth of the capacity' },
      ),
    },
  };
}
