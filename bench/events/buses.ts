import { startRedis } from '../../test/support/redis.ts';
import { median, table } from '../support/measure.ts';
import { Part } from '../support/part.ts';
import type { BusRound, BusTask } from './bus-process.ts';

const NAMES: Record<BusTask['contender'], string> = {
  limit: 'XADD, XREADGROUP COUNT 100, one XACK a batch (the limit)',
  holdfast: '**holdfast RedisEventBus**, one handler',
  bullmq: 'BullMQ, one worker',
  textbook: 'textbook: PUBLISH and HSET, keeps nothing for who is away',
};
const CONTENDERS = Object.keys(NAMES) as BusTask['contender'][];
/** A service runs for long: the engine knows its code. */
const WARM_UP = 5;
const ROUNDS = 7;

type Rounds = Record<BusTask['contender'], BusRound[]>;

/** Publishing and handling over a Redis of its own, which writes nothing to disk. The contenders take turns. */
export async function buses(): Promise<void> {
  const server = await startRedis();
  const parts: [BusTask['contender'], Part][] = [];
  const rounds: Rounds = { limit: [], holdfast: [], bullmq: [], textbook: [] };
  const script = new URL('./bus-process.ts', import.meta.url);
  for (const [index, contender] of CONTENDERS.entries()) {
    parts.push([contender, await Part.start(script, { contender, redis: `${server.url}/${index}` })]);
  }
  for (let round = -WARM_UP; round < ROUNDS; round++) {
    for (const [contender, part] of parts) {
      const result = await part.ask<BusRound>('round');
      if (round >= 0) rounds[contender].push(result);
    }
  }
  for (const [, part] of parts) await part.end();
  await server.stop();
  tell(rounds);
}

function tell(rounds: Rounds): void {
  const pace = (one: (round: BusRound) => number, contender: BusTask['contender']) =>
    median(rounds[contender].map(one));
  const rows = CONTENDERS.map((contender) => [
    NAMES[contender],
    pace(({ publish }) => publish.perSecond, contender).toFixed(0),
    pace(({ publish }) => publish.p99, contender).toFixed(1),
    contender === 'textbook' ? '' : pace(backlogOf, contender).toFixed(0),
    pace(endToEndOf, contender).toFixed(0),
    pace(({ endToEnd }) => endToEnd.p99, contender).toFixed(1),
    pace(({ alone }) => alone, contender).toFixed(1),
  ]);
  const head = [
    'published /s',
    'p99 ms',
    'from a backlog /s',
    'end to end /s',
    'p99 ms',
    'one at a time, p99 ms',
  ];
  table('events over Redis, 100 under way', ['', ...head], rows);
  const ratio = (one: (round: BusRound) => number, other: BusTask['contender']) =>
    median(rounds.holdfast.map((round, index) => one(round) / one(rounds[other][index]!))).toFixed(2);
  const compared = (['limit', 'bullmq', 'textbook'] as const).map((other) => [
    NAMES[other],
    ratio(({ publish }) => publish.perSecond, other),
    other === 'textbook' ? '' : ratio(backlogOf, other),
    ratio(endToEndOf, other),
  ]);
  table('holdfast to each', ['to', 'published', 'from a backlog', 'end to end'], compared);
}

const backlogOf = ({ backlog }: BusRound) => backlog!;
const endToEndOf = ({ endToEnd }: BusRound) => endToEnd.perSecond;
