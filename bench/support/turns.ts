import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';

/** Makes what is measured: one call of it. `argument` is whatever the benchmark hands to all. */
export type Contender = (argument: string) => () => unknown;

export interface Turns {
  /** The module whose `contenders` they are, by name. */
  module: string;
  names: readonly string[];
  argument?: string;
  /** Calls under way at once. */
  concurrency: number;
}

/** Many short turns rather than a few long ones: the speed of a machine drifts, and a ratio is taken within a round. */
const ROUNDS = 21;
const WARM_UP = 16;
const TURN = 100;

/**
 * Calls a second of each contender, round by round. Each has a process of its own, as it would in a service, so
 * that none pays for the garbage of another or for code that the engine shaped for it; they take turns.
 */
export async function callsPerSecond({
  module,
  names,
  argument = '',
  concurrency,
}: Turns): Promise<number[][]> {
  const script = new URL('./contender.ts', import.meta.url);
  const processes = names.map((name) =>
    fork(script, [module, name, argument, String(concurrency), String(TURN)]),
  );
  await Promise.all(processes.map((child) => once(child, 'message')));
  const rates: number[][] = names.map(() => []);
  for (let round = -WARM_UP; round < ROUNDS; round++) {
    for (const [index, child] of processes.entries()) {
      const rate = await turnOf(child);
      if (round >= 0) rates[index]!.push(rate);
    }
  }
  for (const child of processes) child.disconnect();
  return rates;
}

async function turnOf(child: ChildProcess): Promise<number> {
  child.send('turn');
  const [rate] = await once(child, 'message');
  return rate as number;
}
