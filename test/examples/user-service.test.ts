import { expect, test } from 'vitest';
import { uniqueDatabase } from '../support/postgres.ts';
import { startService, type TestResponse } from './demo-services.ts';

const ADA = { id: 'ada', email: 'ada@example.com', name: 'Ada' };

function expectProblem({ status, type, body }: TestResponse, problem: object): void {
  expect(type).toMatch(/^application\/problem\+json/);
  expect(body).toMatchObject(problem);
  expect(body.status).toBe(status);
}

test('a user who is created and changed is told of by events, in that order', async () => {
  const { request, bus } = await startService('user-service', await uniqueDatabase());
  const told: unknown[] = [];
  const both = new Promise<void>((resolve) => {
    void bus.subscribe(
      'user.*',
      ({ eventType, data }) => {
        told.push([eventType, data]);
        if (told.length === 3) resolve();
      },
      { group: 'test' },
    );
  });
  expect((await request('POST', '/users', ADA)).status).toBe(201);
  expect(await request('PATCH', '/users/ada', { version: 1, name: 'Ada L.' })).toMatchObject({
    status: 200,
    body: { name: 'Ada L.', version: 2 },
  });
  expect((await request('DELETE', '/users/ada')).status).toBe(204);
  await both;
  const { email } = ADA;
  expect(told).toEqual([
    ['user.created', { userId: 'ada', email, name: 'Ada' }],
    ['user.updated', { userId: 'ada', email, name: 'Ada L.', active: true }],
    ['user.deleted', { userId: 'ada' }],
  ]);
});

test('a change that is rejected publishes nothing', async () => {
  const database = await uniqueDatabase();
  const { request } = await startService('user-service', database);
  await request('POST', '/users', ADA);
  await request('POST', '/users', ADA);
  await request('PATCH', '/users/ada', { version: 5, name: 'Eve' });
  await request('PATCH', '/users/ada', { version: 1, isAdmin: true });
  const { rows } = await database.pool.query('select event from holdfast.outbox');
  expect(rows.map(({ event }) => JSON.parse(event).eventType)).toEqual(['user.created']);
});

test('a user or a path that is not there is a problem with status 404', async () => {
  const { request } = await startService('user-service', await uniqueDatabase());
  expectProblem(await request('GET', '/users/eve'), {
    status: 404,
    title: 'Not Found',
    detail: "there is no user 'eve'",
    instance: '/users/eve',
  });
  expectProblem(await request('GET', '/nowhere'), { status: 404, instance: '/nowhere' });
});

test('an id that is taken, and a version that has changed, are problems with status 409', async () => {
  const { request } = await startService('user-service', await uniqueDatabase());
  await request('POST', '/users', ADA);
  expectProblem(await request('POST', '/users', ADA), {
    status: 409,
    title: 'Conflict',
    detail: "there is a user 'ada' already",
  });
  expectProblem(await request('PATCH', '/users/ada', { version: 2, name: 'Eve' }), {
    status: 409,
    detail: "the user 'ada' has version 1 by now, not 2",
  });
});

test.each([
  ['a field that is unknown', 'PATCH', { version: 1, isAdmin: true }, ['/isAdmin']],
  ['a field that must not be changed', 'PATCH', { version: 1, active: true }, ['/active']],
  ['a version that is missing', 'PATCH', { name: 'Ada L.' }, ['/version']],
  ['a version that is text', 'PATCH', { version: '1', name: 'Ada L.' }, ['/version']],
  ['two fields that are wrong', 'PATCH', { version: 1, name: '', email: 'nobody' }, ['/email', '/name']],
  ['a new user with a field that is unknown', 'POST', { ...ADA, id: 'eve', isAdmin: true }, ['/isAdmin']],
])('%s is a problem with status 422 that points at it', async (_what, method, body, pointers) => {
  const { request } = await startService('user-service', await uniqueDatabase());
  await request('POST', '/users', ADA);
  const response = await request(method, method === 'POST' ? '/users' : '/users/ada', body);
  expectProblem(response, { status: 422, title: 'Unprocessable Entity' });
  const found = response.body.errors.map(({ pointer }: { pointer: string }) => pointer);
  expect(found.sort()).toEqual(pointers);
  expect((await request('GET', '/users/ada')).body).toEqual({ ...ADA, active: true, version: 1 });
});

test('an error of the database says nothing of it to the caller', async () => {
  const database = await uniqueDatabase();
  const { request } = await startService('user-service', database);
  await database.pool.query('drop table users');
  expectProblem(await request('GET', '/users/ada'), { status: 500, detail: 'Something went wrong here.' });
});
