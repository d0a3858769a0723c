import { startDatabases } from '../support/databases.ts';
import { median, table } from '../support/measure.ts';
import type { Pace } from '../support/pace.ts';
import { Part } from '../support/part.ts';

const NAMES = { holdfast: '**holdfast PostgresEventStore**', emmett: 'Emmett' };
const CONTENDERS = ['holdfast', 'emmett'] as const;
const WARM_UP = 2;
const ROUNDS = 9;

interface Rounds {
  readonly appended: Pace[];
  /** Events a second. */
  readonly read: number[];
}

/** Appending to event stores and reading all of them. The contenders take turns. */
export async function stores(): Promise<void> {
  const databases = await startDatabases();
  const script = new URL('./store-process.ts', import.meta.url);
  const parts: [keyof typeof NAMES, Part][] = [];
  for (const contender of CONTENDERS) {
    const database = await databases.create(contender);
    parts.push([contender, await Part.start(script, { contender, database })]);
  }
  const rounds: Record<keyof typeof NAMES, Rounds> = {
    holdfast: { appended: [], read: [] },
    emmett: { appended: [], read: [] },
  };
  for (let round = -WARM_UP; round < ROUNDS; round++) {
    for (const [contender, part] of parts) {
      const pace = await part.ask<Pace>('append');
      // Ours gives positions with the first read after.
      await part.ask('readAll');
      const rate = await part.ask<number>('readAll');
      if (round < 0) continue;
      rounds[contender].appended.push(pace);
      rounds[contender].read.push(rate);
    }
  }
  for (const [, part] of parts) await part.end();
  await databases.stop();
  tell(rounds);
}

function tell(rounds: Record<keyof typeof NAMES, Rounds>): void {
  const appended = (contender: keyof typeof NAMES) =>
    rounds[contender].appended.map(({ perSecond }) => perSecond);
  const ratio = (own: readonly number[], other: readonly number[]) =>
    median(own.map((rate, round) => rate / other[round]!)).toFixed(2);
  table(
    'event stores, 16 streams at once, one event an append',
    ['', 'appended /s', 'p99 ms', 'read all /s', 'holdfast to it: appended', 'read all'],
    CONTENDERS.map((contender) => [
      NAMES[contender],
      median(appended(contender)).toFixed(0),
      median(rounds[contender].appended.map(({ p99 }) => p99)).toFixed(1),
      median(rounds[contender].read).toFixed(0),
      ratio(appended('holdfast'), appended(contender)),
      ratio(rounds.holdfast.read, rounds[contender].read),
    ]),
  );
}
