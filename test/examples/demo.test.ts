import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { Redis } from 'ioredis';
import pg from 'pg';
import { expect, onTestFinished, test, vi } from 'vitest';
import { readOptions } from '../../examples/demo/harness/options.ts';
import { openStage } from '../../examples/demo/harness/stage.ts';
import { RedisServiceDiscovery } from '../../src/redis/index.ts';
import { fling } from '../policies/helpers.ts';
import { freePort } from '../support/free-port.ts';
import { uniqueDatabase } from '../support/postgres.ts';
import { redisUrl, startRedis, uniquePrefix } from '../support/redis.ts';

/** Processes start slowly on a machine that is busy. */
const TIMEOUT = 60_000;

function run(program: string, args: string[]): ChildProcess {
  const path = new URL(`../../examples/demo/${program}`, import.meta.url);
  const child = fork(path, args, { execArgv: [], stdio: ['ignore', 'pipe', 'pipe', 'ipc'] });
  onTestFinished(() => {
    child.kill('SIGKILL');
  });
  return child;
}

async function result(child: ChildProcess) {
  let errors = '';
  child.stderr!.setEncoding('utf8').on('data', (text: string) => {
    errors += text;
  });
  const [code] = await once(child, 'close');
  return { code, errors };
}

test('the demo tells how it is used when it is called with an option that it does not know', {
  timeout: TIMEOUT,
}, async () => {
  const { code, errors } = await result(run('main.ts', ['--verbose']));
  expect(errors).toContain('Usage: npm run demo');
  expect(code).toBe(2);
});

test.each([[['--redis', 'somewhere']], [['--postgres', 'redis://127.0.0.1']]])(
  'the demo tells how it is used when it is called with %j',
  (args) => {
    const tell = vi.spyOn(console, 'error').mockImplementation(() => {});
    vi.spyOn(process, 'exit').mockImplementation((code) => fling(new Error(`exit code ${code}`)));
    expect(() => readOptions(args)).toThrow('exit code 2');
    expect(tell).toHaveBeenCalledExactlyOnceWith(expect.stringContaining('Usage: npm run demo'));
  },
);

test('the demo says in one line that there is no Redis', { timeout: TIMEOUT }, async () => {
  const server = await startRedis();
  await server.kill();
  const { code, errors } = await result(run('main.ts', ['--redis', server.url]));
  expect(errors).toBe(
    `No Redis to run on at 127.0.0.1:${server.port}: connect ECONNREFUSED 127.0.0.1:${server.port}\n`,
  );
  expect(code).toBe(1);
});

test('the demo says in one line that there is no PostgreSQL', async () => {
  const port = await freePort();
  const opening = openStage({ redis: undefined, postgres: `postgres://127.0.0.1:${port}/postgres` });
  await expect(opening).rejects.toThrow(
    `No PostgreSQL to run on at 127.0.0.1:${port}: connect ECONNREFUSED 127.0.0.1:${port}`,
  );
});

test('an instance ends with the demo that started it, and leaves nothing in Redis', {
  timeout: TIMEOUT,
}, async () => {
  const prefix = uniquePrefix();
  const redis = new Redis(redisUrl());
  const discovery = new RedisServiceDiscovery({ redis, keyPrefix: prefix });
  onTestFinished(async () => {
    await discovery.close();
    redis.disconnect();
  });
  const database = await uniqueDatabase();
  const child = run('harness/instance-process.ts', ['payment-service', redisUrl(), prefix, database.url]);
  const exited = once(child, 'exit');
  await once(child, 'message');

  const [instance] = await discovery.instances('payment-service');
  const answer = await fetch(`http://${instance!.host}:${instance!.port}/charges`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ orderId: 'o', email: 'ada@example.com', amount: 9.5 }),
  });
  expect(answer.status).toBe(200);
  const { rows } = await database.pool.query('select order_id, status from charges');
  expect(rows).toEqual([{ order_id: 'o', status: 'succeeded' }]);

  // What a parent leaves behind that is killed: a closed channel.
  child.disconnect();
  expect(await exited).toEqual([0, null]);
  expect(await redis.keys(`${prefix}*`)).toEqual([]);
});

test('a demo that is interrupted leaves no database', { timeout: TIMEOUT }, async () => {
  const { name, pool, url } = await uniqueDatabase({ migrated: false });
  // Other demos may run on this server, but none as this user.
  const own = Object.assign(new URL(url), { username: name });
  const password = pg.escapeLiteral(decodeURIComponent(own.password));
  await pool.query(`create role ${name} login createdb password ${password}`);
  onTestFinished(async () => void (await pool.query(`drop role ${name}`)));
  const child = run('main.ts', ['--postgres', own.href]);
  const made = () =>
    pool.query("select from pg_database where datname like 'holdfast_demo_%' and datdba = $1::regrole", [
      name,
    ]);
  await vi.waitFor(async () => expect((await made()).rowCount).toBe(5), { timeout: TIMEOUT });
  child.kill('SIGINT');
  expect((await result(child)).code).toBe(130);
  expect((await made()).rowCount).toBe(0);
});
