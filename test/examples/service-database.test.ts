import { expect, test } from 'vitest';
import { uniqueDatabase } from '../support/postgres.ts';
import { startService } from './demo-services.ts';

const ADA = { id: 'ada', email: 'ada@example.com', name: 'Ada' };

test('a service goes on when its database ends all connections, idle and in transactions', async () => {
  const database = await uniqueDatabase();
  const { pool } = database;
  const { request } = await startService('user-service', database);
  const locker = await pool.connect();
  await locker.query('begin; lock table users');
  const pending = request('POST', '/users', ADA);
  const waiting = `select pid from pg_stat_activity
    where datname = current_database() and wait_event_type = 'Lock' and query like '%users%'`;
  await expect.poll(async () => (await pool.query(waiting)).rowCount, { timeout: 5_000 }).toBe(1);
  const { rows } = await locker.query('select pg_backend_pid() as pid');
  await pool.query(
    `select pg_terminate_backend(pid) from pg_stat_activity
     where datname = current_database() and pid not in (pg_backend_pid(), $1)`,
    [rows[0].pid],
  );
  await locker.query('rollback');
  locker.release();
  expect((await pending).status).toBeGreaterThanOrEqual(500);
  await expect.poll(async () => (await request('POST', '/users', ADA)).status, { timeout: 5_000 }).toBe(201);
});
