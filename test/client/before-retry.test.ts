import { describe, expect, it, vi } from 'vitest';
import type { ServiceRetryOptions } from '../../src/index.ts';
import { clientOf, service } from '../support/mesh-client.ts';
import { json, startServer } from '../support/server.ts';

const FRESH = 'Bearer fresh';
const call = { service, path: '/', headers: { authorization: 'Bearer stale', 'x-kept': 'yes' } };

/** Serves those who bring the fresh token, and 401 to the others. */
function startGuarded() {
  return startServer(({ headers }, response) =>
    headers.authorization === FRESH
      ? json(response, { kept: headers['x-kept'] })
      : json(response, { error: 'token expired' }, 401),
  );
}

const retryOf401: ServiceRetryOptions = { statuses: [401], backoff: () => 0 };

describe('beforeRetry of a service client', () => {
  it('changes a header of the next attempt, once a new token is known', async () => {
    const server = await startGuarded();
    const beforeRetry = vi.fn<NonNullable<ServiceRetryOptions['beforeRetry']>>(async () => {
      await undefined;
      return { headers: { Authorization: FRESH } };
    });
    const client = clientOf([server], { retry: { ...retryOf401, beforeRetry } });

    expect(await client.call(call)).toEqual({ kept: 'yes' });

    expect(server.requests).toHaveLength(2);
    const authorizations = server.requests[1]!.headersDistinct.authorization;
    expect(authorizations).toEqual([FRESH]);
    const [outcome, context] = beforeRetry.mock.calls[0]!;
    expect(outcome).toMatchObject({ ok: true, value: { status: 401 } });
    expect(context).toMatchObject({ attempt: 1, attributes: { service, method: 'GET', path: '/' } });
  });

  it.each([1, 3])(
    'is called twice at most while %i instances take no token, as there are three attempts',
    async (count) => {
      const servers = await Promise.all(
        Array.from({ length: count }, () => startServer((_request, response) => json(response, {}, 401))),
      );
      const beforeRetry = vi.fn(async () => ({ headers: { authorization: FRESH } }));
      const client = clientOf(servers, { retry: { ...retryOf401, beforeRetry } });
      await expect(client.call(call)).rejects.toMatchObject({ status: 401 });
      expect(beforeRetry).toHaveBeenCalledTimes(2);
    },
  );

  it('changes the requests of each call alone, however many there are at once', async () => {
    const server = await startServer((request, response) =>
      request.headers['x-retried'] === undefined
        ? json(response, {}, 503)
        : json(response, { url: request.url, retried: request.headers['x-retried'] }),
    );
    const client = clientOf([server], {
      retry: {
        backoff: () => 0,
        beforeRetry: async (_outcome, { attributes }) => ({
          headers: new Headers({ 'x-retried': String(attributes.path) }),
        }),
      },
    });
    const paths = Array.from({ length: 5 }, (_, index) => `/${index}`);
    const responses = await Promise.all(paths.map((path) => client.call({ service, path })));
    expect(responses).toEqual(paths.map((path) => ({ url: path, retried: path })));
  });

  it('takes a header away that it gives as undefined, and changes nothing where it gives nothing', async () => {
    const server = await startServer(({ headers }, response) =>
      json(response, { kept: headers['x-kept'] }, 503),
    );
    const changes = [undefined, { headers: { 'x-kept': undefined } }];
    const beforeRetry = () => changes.shift();
    const client = clientOf([server], { retry: { backoff: () => 0, beforeRetry } });
    await expect(client.call(call)).rejects.toMatchObject({ status: 503 });
    expect(server.requests.map(({ headers }) => headers['x-kept'])).toEqual(['yes', 'yes', undefined]);
  });

  it('changes the requests of a fetch and of request() too', async () => {
    const server = await startGuarded();
    const beforeRetry = () => ({ headers: [['authorization', FRESH]] as [string, string][] });
    const client = clientOf([server], { retry: { ...retryOf401, beforeRetry } });
    const fetched = await client.fetch(`http://${service}/`);
    expect(fetched.status).toBe(200);
    await fetched.text();
    const { status, body } = await client.request({ service, path: '/' });
    expect(status).toBe(200);
    body.resume();
  });

  it('ends the call with its own failure by false, and with what it throws', async () => {
    const server = await startGuarded();
    const withRefresh = (beforeRetry: ServiceRetryOptions['beforeRetry']) =>
      clientOf([server], { retry: { ...retryOf401, beforeRetry } }).call(call);
    await expect(withRefresh(async () => false)).rejects.toMatchObject({ status: 401 });
    const lost = new Error('the issuer of tokens is down');
    await expect(withRefresh(() => Promise.reject(lost))).rejects.toBe(lost);
    expect(server.requests).toHaveLength(2);
  });

  it.each([
    [{ headers: { host: 'elsewhere' } }, /'host' is set by the client itself/],
    [{ headers: { 'Idempotency-Key': 'other' } }, /'idempotency-key' is the same in all attempts/],
    [{ headers: { 'x-request-timeout': '5' } }, /'x-request-timeout' is the same in all attempts/],
    [{ headers: { 'a b': 'c' } }, /not a header name/],
    [{ header: {} }, /beforeRetry' gives has only 'headers'; got 'header'/],
    ['Bearer fresh', /beforeRetry' gives must be an object/],
  ])('rejects %o, and sends nothing more', async (changes, message) => {
    const server = await startGuarded();
    const client = clientOf([server], { retry: { ...retryOf401, beforeRetry: () => changes as never } });
    await expect(client.call(call)).rejects.toThrow(message);
    expect(server.requests).toHaveLength(1);
  });

  it('is not waited for past the timeout of the call', async () => {
    const server = await startGuarded();
    const beforeRetry = () => new Promise<undefined>(() => {});
    const client = clientOf([server], { retry: { ...retryOf401, beforeRetry } });
    await expect(client.call({ ...call, timeout: 30 })).rejects.toMatchObject({ code: 'ERR_TIMEOUT' });
  });
});
