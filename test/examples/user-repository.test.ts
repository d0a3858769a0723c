import { expect, test } from 'vitest';
import { openTables } from '../../examples/demo/service-database.ts';
import { PostgresUserRepository } from '../../examples/demo/user-service/postgres-user-repository.ts';
import type { UserChanges, UserRepository } from '../../examples/demo/user-service/user-repository.ts';
import { type UserTables, userMigrations } from '../../examples/demo/user-service/user-tables.ts';
import { uniqueDatabase } from '../support/postgres.ts';

const ADA = { id: 'ada', email: 'ada@example.com', name: 'Ada' };

async function openUsers(): Promise<UserRepository> {
  const { pool } = await uniqueDatabase({ migrated: false });
  return new PostgresUserRepository(await openTables<UserTables>(pool, userMigrations));
}

test('a user who was created is found, active and with version 1', async () => {
  const users = await openUsers();
  const created = await users.create(ADA);
  expect(created).toEqual({ ...ADA, active: true, version: 1 });
  expect(await users.get('ada')).toEqual(created);
});

test('of two users with one id the second one is a conflict, and changes nothing', async () => {
  const users = await openUsers();
  const results = await Promise.allSettled([users.create(ADA), users.create({ ...ADA, name: 'Other' })]);
  expect(results.map(({ status }) => status).sort()).toEqual(['fulfilled', 'rejected']);
  await expect(users.create(ADA)).rejects.toThrow("there is a user 'ada' already");
});

test('of two who change the same version of a user one is told of a conflict', async () => {
  const users = await openUsers();
  await users.create(ADA);
  const results = await Promise.allSettled([
    users.update('ada', { name: 'Ada L.' }, 1),
    users.update('ada', { email: 'ada@example.org' }, 1),
  ]);
  const failed = results.find(({ status }) => status === 'rejected') as PromiseRejectedResult;
  expect(failed.reason).toMatchObject({
    name: 'ConflictError',
    message: "the user 'ada' has version 2 by now, not 1",
  });
  const { version, ...user } = await users.get('ada');
  expect(version).toBe(2);
  // The change of one, and nothing of the other.
  expect(Number(user.name === 'Ada L.') + Number(user.email === 'ada@example.org')).toBe(1);
});

test.each(['active', 'version', 'id', 'isAdmin', '__proto__'])(
  'an update cannot set the field %s',
  async (field) => {
    const users = await openUsers();
    const before = await users.create(ADA);
    const changes = JSON.parse(`{ "name": "Eve", "${field}": 5 }`) as UserChanges;
    await expect(users.update('ada', changes, 1)).rejects.toMatchObject({
      name: 'InvalidError',
      issues: [{ pointer: `/${field}`, detail: 'is no field that can be changed' }],
    });
    expect(await users.get('ada')).toEqual(before);
  },
);

test('a user who is deactivated is there, not active, and has a new version', async () => {
  const users = await openUsers();
  await users.create(ADA);
  expect(await users.deactivate('ada')).toEqual({ ...ADA, active: false, version: 2 });
  await expect(users.update('ada', { name: 'Ada L.' }, 1)).rejects.toThrow('by now');
});

test('a user who is deleted is not found any more', async () => {
  const users = await openUsers();
  await users.create(ADA);
  await users.delete('ada');
  const notFound = "there is no user 'ada'";
  await expect(users.get('ada')).rejects.toThrow(notFound);
  await expect(users.update('ada', { name: 'Ada L.' }, 1)).rejects.toThrow(notFound);
  await expect(users.deactivate('ada')).rejects.toThrow(notFound);
  await expect(users.delete('ada')).rejects.toThrow(notFound);
});

test('instances that start at once migrate their database once', async () => {
  const { pool } = await uniqueDatabase({ migrated: false });
  await Promise.all([1, 2, 3].map(() => openTables(pool, userMigrations)));
  const { rows } = await pool.query('select name from kysely_migration');
  expect(rows).toEqual([{ name: '001-users' }]);
});
