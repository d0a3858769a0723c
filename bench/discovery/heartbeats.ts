import { setTimeout } from 'node:timers/promises';
import type { Redis } from 'ioredis';
import { now, table } from '../support/measure.ts';
import { commandsSent, workOf } from '../support/redis-work.ts';
import { Clients } from './clients.ts';
import { Fleet, type FleetOptions } from './fleet.ts';
import { DEFAULT_INTERVAL } from './moleculer.ts';
import { PROCESSES } from './registry.ts';

/** Milliseconds between heartbeats here. What an interval costs does not depend on how long it is. */
const INTERVAL = 1_000;
const INTERVALS = 4;
/** Milliseconds after the start: the timers that began together are spread by then. */
const SETTLING = 2 * INTERVAL;
/** Seconds between heartbeats by default: holdfast's, which the textbook is given too. */
const USUAL = 30;
const CLIENTS = 200;

interface Row {
  name: string;
  start: (redis: string) => Promise<Fleet | Clients>;
  processes: number;
  /** Seconds between heartbeats by default. */
  usual: number;
}

function fleet(contender: FleetOptions['contender'], processes: number) {
  return (redis: string) => Fleet.start({ contender, redis, processes, interval: INTERVAL });
}

const ROWS: Row[] = [
  {
    name: `**holdfast**, ${PROCESSES} processes with an instance of each service`,
    start: fleet('holdfast', PROCESSES),
    processes: PROCESSES,
    usual: USUAL,
  },
  {
    name: '**holdfast**, one process with all instances',
    start: fleet('holdfast', 1),
    processes: 1,
    usual: USUAL,
  },
  {
    name: `textbook, HSET and EXPIRE of each instance, ${PROCESSES} processes`,
    start: fleet('textbook', PROCESSES),
    processes: PROCESSES,
    usual: USUAL,
  },
  {
    name: `moleculer, ${PROCESSES} nodes, whose heartbeats also look for one another`,
    start: fleet('moleculer', PROCESSES),
    processes: PROCESSES,
    usual: DEFAULT_INTERVAL,
  },
  {
    name: `besides: holdfast, ${CLIENTS} clients that follow a service of which there is no news`,
    start: (redis) =>
      Clients.start({ contender: 'holdfast', redis, clients: CLIENTS, refreshInterval: INTERVAL }),
    processes: CLIENTS,
    usual: USUAL,
  },
];

export async function heartbeats(redis: Redis, url: string): Promise<void> {
  const loads: Load[] = [];
  for (const row of ROWS) loads.push(await loadOf(row, redis, url));
  const perSecond = loads.map(({ commands }, index) => commands / ROWS[index]!.usual);
  table(
    'What keeps 10,000 instances in 100 services alive, by interval, and by second if it is as long as by default',
    [
      '',
      'commands a process and interval',
      'ms of CPU of Redis an interval',
      'interval by default',
      'commands a second',
      'to ours',
      '% of a core',
      'to ours',
    ],
    loads.map(({ commands, cpu }, index) => {
      const { name, processes, usual } = ROWS[index]!;
      return [
        name,
        (commands / processes).toFixed(2),
        cpu.toFixed(1),
        `${usual} s`,
        perSecond[index]!.toFixed(2),
        (perSecond[index]! / perSecond[0]!).toFixed(2),
        (cpu / (10 * usual)).toFixed(2),
        (cpu / usual / (loads[0]!.cpu / ROWS[0]!.usual)).toFixed(2),
      ];
    }),
  );
}

/** Of an interval. */
interface Load {
  commands: number;
  cpu: number;
}

async function loadOf({ name, start }: Row, redis: Redis, url: string): Promise<Load> {
  const subject = await start(url);
  await setTimeout(SETTLING);
  await subject.failures();
  const startedAt = now();
  const before = await workOf(redis);
  await setTimeout(INTERVALS * INTERVAL);
  const after = await workOf(redis);
  const intervals = (now() - startedAt) / INTERVAL;
  const failures = await subject.failures();
  if (failures.length > 0) throw new Error(`${name}: ${failures.length} failures, first: ${failures[0]}`);
  await subject.end();
  await redis.flushall();
  return { commands: commandsSent(before, after) / intervals, cpu: (after.cpu - before.cpu) / intervals };
}
