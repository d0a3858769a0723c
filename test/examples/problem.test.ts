import { expect, test } from 'vitest';
import { uniqueDatabase } from '../support/postgres.ts';
import { startService } from './demo-services.ts';

const USER = { id: 'ada', email: 'ada@example.com', name: 'Ada' };
const ORDER = { orderId: 'o1', userId: 'ada', quantity: 1, amount: 9.5 };
const CHARGE = { orderId: 'o1', email: 'ada@example.com', amount: 9.5 };

type Request = readonly [method: string, path: string, body?: object];

/** Requests that no service can take, and that PostgreSQL or the bus would reject, or a mail suffer from. */
const HOSTILE: Record<string, Request[]> = {
  'user-service': [
    ['GET', '/users/%00'],
    ['GET', `/users/${encodeURIComponent("x' or 1=1 --")}`],
    ['POST', '/users/%00/deactivate'],
    ['DELETE', '/users/%00'],
    ['POST', '/users', { ...USER, id: "x'; drop table users; --" }],
    ['POST', '/users', { ...USER, name: '\0' }],
    ['POST', '/users', { ...USER, name: '\ud800' }],
    ['POST', '/users', { ...USER, email: 'a\0@example.com' }],
    ['POST', '/users', { ...USER, email: 'ada@example.com\r\nBcc: everyone@example.com' }],
    ['PATCH', '/users/ada', { version: 2 ** 31 - 1, name: 'Eve' }],
    ['PATCH', '/users/ada', { version: 1e300, name: 'Eve' }],
  ],
  'order-service': [
    ['POST', '/orders', { ...ORDER, orderId: '' }],
    ['POST', '/orders', { ...ORDER, userId: '../users/eve' }],
    ['POST', '/orders', { ...ORDER, quantity: -1 }],
    ['POST', '/orders', { ...ORDER, quantity: 1e15 }],
    ['POST', '/orders', { ...ORDER, amount: -9.5 }],
    ['POST', '/orders', { ...ORDER, amount: 1e308 }],
    ['POST', '/orders/%00/cancel'],
    ['GET', '/orders/%00'],
    ['GET', '/orders?userId=%00'],
  ],
  'inventory-service': [
    ['POST', '/reservations', { orderId: '', quantity: 1 }],
    ['POST', '/reservations', { orderId: '\0', quantity: 1 }],
    ['POST', '/reservations', { orderId: 'o1', quantity: -1 }],
    ['POST', '/reservations', { orderId: 'o1', quantity: 1, price: 0 }],
    ['DELETE', '/reservations/%00'],
  ],
  'payment-service': [
    ['POST', '/charges', { ...CHARGE, orderId: '' }],
    ['POST', '/charges', { ...CHARGE, email: '\0@example.com' }],
    ['POST', '/charges', { ...CHARGE, amount: 5e-324 }],
    ['POST', '/charges', { ...CHARGE, status: 'succeeded' }],
  ],
  'notification-service': [['POST', '/notifications', { to: 'ada@example.com', text: '\0' }]],
};

test.each(Object.entries(HOSTILE))(
  '%s calls what it cannot keep a problem with status 422, and nothing is wrong with the service',
  async (service, requests) => {
    const { request } = await startService(service, await uniqueDatabase());
    for (const [method, path, body] of requests) {
      const { status, type } = await request(method, path, body);
      expect.soft({ status, type, method, path, body }).toEqual({
        status: 422,
        type: expect.stringMatching('^application/problem\\+json'),
        ...{ method, path, body },
      });
    }
  },
);

test.each([
  ['cannot be decoded', '/users/%zz', 400],
  ['is too long', `/users/${'a'.repeat(300)}`, 414],
])('a URL that %s is a problem as well', async (_why, path, status) => {
  const { request } = await startService('user-service', await uniqueDatabase());
  const response = await request('GET', path);
  expect(response.type).toMatch(/^application\/problem\+json/);
  expect({ sent: response.status, told: response.body.status }).toEqual({ sent: status, told: status });
});

test('a body that is no JSON is a problem with status 400', async () => {
  const { origin } = await startService('user-service', await uniqueDatabase());
  const headers = { 'content-type': 'application/json' };
  const response = await fetch(`${origin}/users`, { method: 'POST', headers, body: '{ "id": ' });
  expect(response.headers.get('content-type')).toMatch(/^application\/problem\+json/);
  expect(await response.json()).toMatchObject({ status: 400, title: 'Bad Request' });
});

test('a statement that the database rejects is the fault of the service, and tells no caller of tables', async () => {
  const database = await uniqueDatabase({ migrated: false });
  const { request } = await startService('user-service', database);
  await database.pool.query('drop table holdfast.outbox cascade');
  const { status, body } = await request('POST', '/users', USER);
  expect({ status, detail: body.detail }).toEqual({ status: 500, detail: 'Something went wrong here.' });
});
