import { beforeAll, beforeEach, expect, it, vi } from 'vitest';
import { type Database, fromPg } from '../../src/postgres/index.ts';
import { LeaseHolder } from '../../src/postgres/lease-holder.ts';
import { emptyTables, type TestDatabase, uniqueDatabase } from '../support/postgres.ts';

let test: TestDatabase;
let database: Database;

beforeAll(async () => {
  test = await uniqueDatabase();
});

beforeEach(async () => {
  await emptyTables(test);
  database = fromPg(test.pool);
});

const setUntil = (sql: string) => database.query(`update holdfast.leases set until = ${sql}`);

it('a lease has one holder, until it is released', async () => {
  const [first, second] = [new LeaseHolder(database, 10_000), new LeaseHolder(database, 10_000)];
  expect(await first.acquire(['a', 'b'])).toEqual(['a', 'b']);
  expect(await second.acquire(['a', 'b', 'c'])).toEqual(['c']);
  await first.release(['a']);
  expect(first.isHeld('a')).toBe(false);
  expect(await second.acquire(['a', 'b'])).toEqual(['a']);
});

it('of many processes that ask for a lease at once, one gets it', async () => {
  const all = Array.from({ length: 10 }, () => new LeaseHolder(database, 10_000));
  const acquired = await Promise.all(all.map((leases) => leases.acquire(['a'])));
  expect(acquired.filter((names) => names.length === 1)).toHaveLength(1);
});

it('no more leases are taken than the limit says', async () => {
  const leases = new LeaseHolder(database, 10_000);
  expect(await leases.acquire(['a', 'b', 'c'], 2)).toEqual(['a', 'b']);
  expect(await leases.acquire(['a', 'b', 'c'], 0)).toEqual([]);
});

it('a lease that has run out goes to another process with a higher token, and its holder loses it', async () => {
  const [first, second] = [new LeaseHolder(database, 10_000), new LeaseHolder(database, 10_000)];
  await first.acquire(['a']);
  await setUntil(`clock_timestamp() - interval '1 ms'`);
  expect(await second.acquire(['a'])).toEqual(['a']);
  expect(BigInt(second.tokenOf('a')!)).toBeGreaterThan(BigInt(first.tokenOf('a')!));
  expect(await first.renew()).toEqual(['a']);
  expect(first.tokenOf('a')).toBeUndefined();
  await first.release(['a']);
  expect(await second.renew()).toEqual([]);
});

it('a lease that has run out is renewed if nobody else has taken it', async () => {
  const leases = new LeaseHolder(database, 10_000);
  await leases.acquire(['a']);
  await setUntil(`clock_timestamp() - interval '1 ms'`);
  expect(await leases.renew()).toEqual([]);
  expect(await new LeaseHolder(database, 10_000).acquire(['a'])).toEqual([]);
});

it('the clock of the database decides, whatever the clock of a process says', async () => {
  const first = new LeaseHolder(database, 10_000);
  await first.acquire(['a']);
  vi.useFakeTimers({ toFake: ['Date'], now: Date.now() + 86_400_000 });
  expect(await new LeaseHolder(database, 10_000).acquire(['a'])).toEqual([]);
  expect(first.isHeld('a')).toBe(true);
});

it('a lease from before the clock of the database was set back is free', async () => {
  await new LeaseHolder(database, 10_000).acquire(['a']);
  await setUntil(`clock_timestamp() + interval '1 hour'`);
  expect(await new LeaseHolder(database, 10_000).acquire(['a'])).toEqual(['a']);
});

it('a process that was not renewed in time holds its lease no more by its own clock', async () => {
  const leases = new LeaseHolder(database, 10_000);
  await leases.acquire(['a']);
  const now = performance.now();
  vi.spyOn(performance, 'now').mockReturnValue(now + 10_000);
  expect(leases.isHeld('a')).toBe(false);
  await leases.renew();
  expect(leases.isHeld('a')).toBe(true);
});

it('the leases that are held are listed by the beginning of their names', async () => {
  const leases = new LeaseHolder(database, 10_000);
  await leases.acquire(['b 2', 'b 1', 'c_1']);
  await leases.release(['b 2']);
  expect(await leases.list('b ')).toEqual(['b 1']);
  expect(await leases.list('c_')).toEqual(['c_1']);
});
