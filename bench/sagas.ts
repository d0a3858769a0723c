import { startRedis } from '../test/support/redis.ts';
import type { SagaPace, SagaTask } from './sagas/saga-process.ts';
import { type Databases, startDatabases } from './support/databases.ts';
import { median, table } from './support/measure.ts';
import { Part } from './support/part.ts';

type Name = SagaTask['contender'];

/** The paces of a contender, round by round, with one saga and with sixteen at a time. */
interface Rounds {
  readonly one: SagaPace[];
  readonly sixteen: SagaPace[];
  /** Round trips a second while no saga runs. */
  idle: number;
}

const WARM_UP = 2;
const ROUNDS = 5;
const AT_ONCE = ['one', 'sixteen'] as const;
type AtOnce = (typeof AT_ONCE)[number];

const NAMES: Record<Name, string> = {
  memory: '**holdfast**, InMemorySagaStore',
  redis: '**holdfast**, RedisSagaStore',
  push: 'a bare loop: RPUSH, pipelined',
  postgres: '**holdfast**, PostgresSagaStore',
  dbos: 'DBOS 5',
  update: 'a bare loop: INSERT, then UPDATE',
  insert: 'a bare loop: INSERT',
};

/** To reach, as ratios to others in the same round. */
const BARS = [
  { to: 'dbos', atOnce: 'sixteen', least: 5 },
  { to: 'dbos', atOnce: 'one', least: 1.5 },
  { to: 'update', atOnce: 'sixteen', least: 0.8 },
  { to: 'insert', atOnce: 'sixteen', least: 0.8 },
  { to: 'push', atOnce: 'sixteen', least: 0.8 },
] as const;
/** Round trips of a saga of five steps: one that begins it, and one for each step. */
const ROUND_TRIPS = 6;

/** Sagas of five trivial steps on each store, beside DBOS and loops that only write. The contenders take turns. */
export async function sagas(): Promise<void> {
  await inMemory();
  for (const fsync of ['everysec', 'always'] as const) await onRedis(fsync);
  for (const fsync of [true, false]) await onPostgres(fsync);
}

async function inMemory(): Promise<void> {
  tell('sagas in memory', await measure(new Map([['memory', '']])));
}

/** Each has a Redis of its own, which counts the commands of nobody else. */
async function onRedis(appendfsync: 'everysec' | 'always'): Promise<void> {
  const args = ['--appendonly', 'yes', '--appendfsync', appendfsync];
  const [ours, bare] = [await startRedis({ args }), await startRedis({ args })];
  const rounds = await measure(
    new Map([
      ['redis', ours.url],
      ['push', bare.url],
    ]),
  );
  await Promise.all([ours.stop(), bare.stop()]);
  tell(`sagas on Redis, appendfsync ${appendfsync}`, rounds);
  judge('redis', rounds);
}

async function onPostgres(fsync: boolean): Promise<void> {
  const databases = await startDatabases(fsync);
  const rounds = await measure(await createDatabases(databases, ['postgres', 'dbos', 'update', 'insert']));
  await databases.stop();
  tell(`sagas on PostgreSQL, fsync ${fsync ? 'on' : 'off'}`, rounds);
  judge('postgres', rounds);
}

async function createDatabases(databases: Databases, names: readonly Name[]): Promise<Map<Name, string>> {
  const urls = new Map<Name, string>();
  for (const name of names) urls.set(name, await databases.create(name));
  return urls;
}

async function measure(urls: ReadonlyMap<Name, string>): Promise<Map<Name, Rounds>> {
  const parts = new Map<Name, Part>();
  const rounds = new Map<Name, Rounds>();
  for (const [contender, url] of urls) {
    const task: SagaTask = { contender, url };
    parts.set(contender, await Part.start(new URL('./sagas/saga-process.ts', import.meta.url), task));
    rounds.set(contender, { one: [], sixteen: [], idle: 0 });
  }
  for (let round = -WARM_UP; round < ROUNDS; round++) {
    for (const atOnce of AT_ONCE) {
      for (const [contender, part] of parts) {
        const pace = await part.ask<SagaPace>(atOnce);
        if (round >= 0) rounds.get(contender)![atOnce].push(pace);
      }
    }
  }
  await Promise.all(
    Array.from(parts, async ([contender, part]) => {
      rounds.get(contender)!.idle = await part.ask<number>('idle');
      await part.end();
    }),
  );
  return rounds;
}

/** The first contender is ours: the others are compared with it. */
function tell(title: string, rounds: ReadonlyMap<Name, Rounds>): void {
  const [[ours]] = [...rounds] as [[Name, Rounds]];
  const cells = (name: Name, atOnce: AtOnce) => {
    return [
      median(rounds.get(name)![atOnce].map(({ perSecond }) => perSecond)).toFixed(0),
      ratioOf(rounds, ours, name, atOnce).toFixed(2),
      roundTripsOf(rounds.get(name)!, atOnce).toFixed(2),
    ];
  };
  table(
    title,
    ['', ...AT_ONCE.flatMap((atOnce) => [`${atOnce} at a time /s`, 'holdfast to it', 'round trips each'])],
    [...rounds.keys()].map((name) => [NAMES[name], ...cells(name, 'one'), ...cells(name, 'sixteen')]),
  );
}

function ratioOf(rounds: ReadonlyMap<Name, Rounds>, own: Name, other: Name, atOnce: AtOnce): number {
  const others = rounds.get(other)![atOnce];
  return median(rounds.get(own)![atOnce].map(({ perSecond }, round) => perSecond / others[round]!.perSecond));
}

/** Gives those of one saga, without those of the background. */
function roundTripsOf({ idle, ...paces }: Rounds, atOnce: AtOnce): number {
  return median(paces[atOnce].map(({ roundTrips, perSecond }) => (roundTrips - idle) / perSecond));
}

/** Says of each bar whether it is reached. */
function judge(ours: Name, rounds: ReadonlyMap<Name, Rounds>): void {
  console.log('');
  for (const { to, atOnce, least } of BARS) {
    if (!rounds.has(to)) continue;
    const ratio = ratioOf(rounds, ours, to, atOnce);
    const verdict = ratio >= least ? 'met' : 'missed';
    console.log(`- ${atOnce} at a time, to ${NAMES[to]}: ${ratio.toFixed(2)} of ${least}, ${verdict}`);
  }
  const count = roundTripsOf(rounds.get(ours)!, 'one');
  // The renewal of leases, which there is only while sagas run, may add a tenth of one.
  const verdict = count < ROUND_TRIPS + 0.1 ? 'met' : 'missed';
  console.log(`- round trips of a saga, one of its start and one a step: ${count.toFixed(2)}, ${verdict}`);
}
