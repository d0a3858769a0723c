import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import pg from 'pg';
import { beforeAll, expect, onTestFinished, test, vi } from 'vitest';
import { type PostgresServer, startPostgres, uniqueDatabase } from './postgres.ts';

let server: PostgresServer;

beforeAll(async () => {
  server = await startPostgres(['deadlock_timeout=10ms']);
  return () => server.stop();
});

async function connect(url: string): Promise<pg.Client> {
  const client = new pg.Client({ connectionString: url });
  client.on('error', () => {});
  await client.connect();
  onTestFinished(() => client.end());
  return client;
}

test('tests share a PostgreSQL, and each database is apart, migrated and has an id of its own', async () => {
  const [one, two] = [await uniqueDatabase(), await uniqueDatabase()];
  await one.pool.query('create table notes (text text)');
  await expect(two.pool.query('select * from notes')).rejects.toThrow('does not exist');
  const ids = await Promise.all([one, two].map(({ pool }) => pool.query('select id from holdfast.source')));
  expect(ids[0]!.rows[0].id).not.toBe(ids[1]!.rows[0].id);
});

test('a PostgreSQL takes the settings that it is given', async () => {
  const client = await connect(server.url);
  expect((await client.query('show deadlock_timeout')).rows).toEqual([{ deadlock_timeout: '10ms' }]);
});

test('a PostgreSQL that is killed is gone, and comes back with what was committed', async () => {
  const before = await connect(server.url);
  await before.query('create table notes as select 1 as kept');
  await server.kill();
  await expect(connect(server.url)).rejects.toThrow('ECONNREFUSED');
  await server.restart();
  expect((await (await connect(server.url)).query('select kept from notes')).rows).toEqual([{ kept: 1 }]);
  await server.stop();
  expect(existsSync(server.directory)).toBe(false);
});

test('a PostgreSQL does not outlive a process that was killed', async () => {
  const script = `
    import { startPostgres } from ${JSON.stringify(new URL('./postgres.ts', import.meta.url).href)};
    const { url, directory } = await startPostgres();
    console.log(JSON.stringify({ url, directory }));
    setInterval(() => {}, 1_000);
  `;
  const parent = spawn(process.execPath, ['--input-type=module-typescript', '-e', script], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  onTestFinished(() => void parent.kill('SIGKILL'));
  const [line] = await once(parent.stdout.setEncoding('utf8'), 'data');
  const { url, directory } = JSON.parse(line);
  const client = await connect(url);
  const ended = new Promise((resolve) => void client.once('end', resolve));
  expect(existsSync(directory)).toBe(true);
  parent.kill('SIGKILL');
  await ended;
  await vi.waitFor(() => expect(existsSync(directory)).toBe(false), { timeout: 5_000 });
});
