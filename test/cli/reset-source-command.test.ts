import { describe, expect, it } from 'vitest';
import { fromPg, readSource } from '../../src/postgres/index.ts';
import { uniqueDatabase } from '../support/postgres.ts';
import { finish } from './helpers.ts';

const RESET = ['events', 'reset-source'];

describe('holdfast events reset-source', () => {
  it('holdfast events reset-source gives a database a new id, and shows it', async () => {
    const { url, pool } = await uniqueDatabase();
    const before = await readSource(fromPg(pool));

    const { exitCode, out, err } = await finish([...RESET, '--postgres', url]);

    const source = await readSource(fromPg(pool));
    expect(source).not.toBe(before);
    expect(out).toBe(`the database has the id ${source} now: restart what relays its outbox\n`);
    expect({ exitCode, err }).toEqual({ exitCode: 0, err: '' });
  });

  it('holdfast events reset-source finds the database by DATABASE_URL, and writes JSON', async () => {
    const { url, pool } = await uniqueDatabase();
    const { exitCode, out } = await finish([...RESET, '--json'], { env: { DATABASE_URL: url } });
    expect(JSON.parse(out)).toEqual([{ source: await readSource(fromPg(pool)) }]);
    expect(exitCode).toBe(0);
  });

  it('holdfast events reset-source fails on a database that was never migrated', async () => {
    const { url } = await uniqueDatabase({ migrated: false });
    const { exitCode, out, err } = await finish([...RESET, '--postgres', url]);
    expect(err).toMatch(
      /^holdfast: the database at .*"holdfast\.source" does not exist.* run migrate\(.*\n$/,
    );
    expect({ exitCode, out }).toEqual({ exitCode: 1, out: '' });
  });

  it('holdfast events reset-source gives up when the database says nothing for too long', async () => {
    const { url, pool } = await uniqueDatabase();
    const other = await pool.connect();
    await other.query('begin');
    await other.query('lock table holdfast.source');
    const { exitCode, err } = await finish([...RESET, '--postgres', url, '--timeout', '300']);
    expect(err).toMatch(/^holdfast: the database at .*: Query read timeout\n$/);
    expect(exitCode).toBe(1);
    await other.query('rollback');
    other.release();
  });

  it.each([
    ['is away', 'postgres://app:hunter2@127.0.0.1:1/orders', /ECONNREFUSED/],
    [
      'needs a file that is not there',
      'postgres://app:hunter2@127.0.0.1:1/orders?sslrootcert=/nowhere',
      /ENOENT/,
    ],
  ])(
    'holdfast events reset-source says in one line that the database %s, without the password',
    async (_, url, reason) => {
      const { exitCode, err } = await finish([...RESET, '--postgres', url, '--timeout', '500']);
      expect(err).toMatch(/^holdfast: the database at 127\.0\.0\.1:1: .*\n$/);
      expect(err).toMatch(reason);
      expect(err).not.toContain('hunter2');
      expect(exitCode).toBe(1);
    },
  );
});
