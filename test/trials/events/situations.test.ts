import { it } from 'vitest';
import { seeded } from '../../../bench/support/seeded.ts';
import { deathsUpTo, killRelays, killServices } from '../../support/events/deaths.ts';
import { killConsumers, loseEventsOfRedis } from '../../support/events/deliveries.ts';
import { commitWhileRebuilding } from '../../support/events/rebuilds.ts';
import { startPostgres } from '../../support/postgres-server.ts';
import { startRedis } from '../../support/redis.ts';

// A small form of them is among the tests: test/integration/events.test.ts.

const AGGREGATES = 50;
const EVENTS = 20_000;
const LEASE = 2_000;
/** Milliseconds that a situation may take. */
const LIMIT = 140_000;

const random = seeded(Number(process.env.TRIAL_SEED ?? 1));

it(`${EVENTS} events of ${AGGREGATES} aggregates have their effect once and in order, while three consumers are killed in turn and Redis restarts twice`, {
  timeout: LIMIT,
}, async ({ task }) => {
  const redis = await startRedis({ args: ['--appendonly', 'yes', '--appendfsync', 'always'] });
  const { url: postgres } = await startPostgres();
  const options = { redis, postgres, aggregates: AGGREGATES, events: EVENTS / AGGREGATES, consumers: 3 };
  task.meta.measured = await killConsumers({ ...options, lease: LEASE }, { restarts: 2, random });
});

it.for([
  ['with files that are five seconds old', 'old'],
  ['empty', 'empty'],
] as const)(
  'no event of an outbox is lost while Redis restarts once, %s',
  { timeout: LIMIT },
  async ([, state], { task }) => {
    const redis = await startRedis();
    const { url: postgres } = await startPostgres();
    const options = { redis, postgres, aggregates: AGGREGATES, events: 100, consumers: 2, lease: LEASE };
    task.meta.measured = await loseEventsOfRedis(options, { state, pause: 80 });
  },
);

it('a service that dies before or after each write, or at any time, publishes what it has committed and nothing else', {
  timeout: LIMIT,
}, async ({ task }) => {
  const [redis, postgres] = [await startRedis(), await startPostgres()];
  const lives = Array.from({ length: 10 }, () => 400 * random());
  task.meta.measured = await killServices(
    { redis: redis.url, postgres: postgres.url },
    // Three transactions, of which the second one is rolled back.
    { deaths: deathsUpTo(11), lives },
  );
});

it('a relay that dies before or after each of its steps publishes each event once', {
  timeout: LIMIT,
}, async ({ task }) => {
  const [redis, postgres] = [await startRedis(), await startPostgres()];
  task.meta.measured = await killRelays({ redis: redis.url, postgres: postgres.url }, deathsUpTo(30));
});

it('a projection skips none of two transactions that commit in the other order, with a rollback between, while it is rebuilt', {
  timeout: LIMIT,
}, async ({ task }) => {
  const { url } = await startPostgres();
  task.meta.measured = await commitWhileRebuilding(url, { rounds: 150, random });
});
