import { createServer } from 'node:http';
import axios from 'axios';
import got from 'got';
import { request } from 'undici';
import { describe, expect, it } from 'vitest';
import {
  type CallContext,
  CircuitBreaker,
  CircuitOpenError,
  compose,
  isHttpFailure,
  isNetworkError,
  isRetryableHttpFailure,
  type Outcome,
  Retry,
  Timeout,
  TimeoutError,
} from '../../src/index.ts';
import { startServer } from '../support/server.ts';

const answering = (status: number) =>
  startServer((_request, response) => {
    response.writeHead(status).end();
  });

const CLIENTS: Record<string, (url: string, signal?: AbortSignal) => Promise<unknown>> = {
  fetch: async (url, signal) => {
    const response = await fetch(url, signal === undefined ? {} : { signal });
    await response.arrayBuffer();
    return response;
  },
  undici: async (url, signal) => {
    const response = await request(url, { signal });
    await response.body.dump();
    return response;
  },
  axios: (url, signal) => axios.get(url, { ...(signal !== undefined && { signal }), proxy: false }),
  got: (url, signal) => got(url, { retry: { limit: 0 }, ...(signal !== undefined && { signal }) }),
};

async function outcomeOf(call: Promise<unknown>): Promise<Outcome<unknown>> {
  try {
    return { ok: true, value: await call };
  } catch (error) {
    return { ok: false, error };
  }
}

describe.each(Object.entries(CLIENTS))('the outcome of a request of %s', (_name, get) => {
  it.each([
    [200, false, false],
    [404, false, false],
    [429, false, true],
    [500, true, false],
    [503, true, true],
  ])('with the status %i counts as in a ServiceClient', async (status, failure, retryable) => {
    const { origin } = await answering(status);
    const outcome = await outcomeOf(get(origin));
    expect([isHttpFailure(outcome), isRetryableHttpFailure(outcome)]).toEqual([failure, retryable]);
    expect(outcome.ok ? false : isNetworkError(outcome.error)).toBe(false);
  });

  it('without a connection, or with one that breaks, is a failure that may be retried', async () => {
    const { origin, stop } = await answering(200);
    await stop();
    const breaking = await startServer(({ socket }) => void socket.destroy());
    for (const url of [origin, breaking.origin]) {
      const outcome = await outcomeOf(get(url));
      expect(outcome).toMatchObject({ ok: false, error: expect.toSatisfy(isNetworkError) });
      expect([isHttpFailure(outcome), isRetryableHttpFailure(outcome)]).toEqual([true, true]);
    }
  });

  it('that is aborted is a failure, and no breaker counts it when its caller has cancelled', async () => {
    const { origin } = await startServer(() => {});
    const controller = new AbortController();
    const breaker = new CircuitBreaker({ failureThreshold: 1, isFailure: isHttpFailure });
    const call = outcomeOf(breaker.execute(({ signal }) => get(origin, signal), controller));
    controller.abort();
    const outcome = await call;
    expect(outcome.ok).toBe(false);
    expect([isHttpFailure(outcome), isRetryableHttpFailure(outcome)]).toEqual([true, false]);
    expect(breaker.state).toBe('closed');
  });
});

it.each<[string, unknown, boolean, boolean]>([
  ['a timeout of Holdfast', new TimeoutError('late', 5), true, true],
  ['a timeout of a signal', new DOMException('late', 'TimeoutError'), true, true],
  ['an open circuit', new CircuitOpenError('open', 5), false, false],
  ['a fault of the program', new TypeError('x is not a function'), true, false],
  ['an error whose causes go in a circle', circular(), true, false],
  ['text', 'down', true, false],
  ['the exit code of a process', { status: 1 }, true, false],
  ['a network error with the status 0', { status: 0, code: 'ECONNREFUSED' }, true, true],
  ['nothing', undefined, true, false],
])('%s counts as in a ServiceClient', (_title, error, failure, retryable) => {
  const outcome = { ok: false, error } as const;
  expect([isHttpFailure(outcome), isRetryableHttpFailure(outcome)]).toEqual([failure, retryable]);
});

it.each([undefined, null, 'text', 5, {}, { status: 'active' }])(
  'a value that is no response is no failure: %o',
  (value) => {
    const outcome = { ok: true, value } as const;
    expect([isHttpFailure(outcome), isRetryableHttpFailure(outcome)]).toEqual([false, false]);
  },
);

it('a breaker opens when a service hangs within a Timeout that waits for operations to obey it', async () => {
  const breaker = new CircuitBreaker({ failureThreshold: 2, isFailure: isHttpFailure });
  const guarded = compose(breaker, new Timeout(1, { strict: false }));
  const hang = ({ signal }: CallContext) =>
    new Promise((_, reject) => {
      const cancelled = Object.assign(new Error('canceled'), { name: 'CanceledError' });
      signal.addEventListener('abort', () => reject(cancelled));
    });
  for (let call = 0; call < 2; call++) await outcomeOf(guarded.execute(hang));
  expect(breaker.state).toBe('open');
});

it('the predicates decide for a Retry and a CircuitBreaker as they are', async () => {
  let requests = 0;
  const server = createServer((_request, response) => {
    response.writeHead(++requests === 1 ? 503 : 404).end();
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as { port: number };
  const retry = new Retry({ shouldRetry: isRetryableHttpFailure, backoff: () => 0 });
  const breaker = new CircuitBreaker({ failureThreshold: 1, isFailure: isHttpFailure });
  const response = await retry.execute(() => CLIENTS.fetch!(`http://127.0.0.1:${port}/`));
  expect((response as Response).status).toBe(404);
  await breaker.execute(() => response);
  expect(breaker.state).toBe('closed');
  await breaker.execute(() => ({ status: 500 }));
  expect(breaker.state).toBe('open');
  server.close();
  server.closeAllConnections();
});

function circular(): Error {
  const error = new Error('first');
  error.cause = new Error('second', { cause: error });
  return error;
}
