import { describe, expect, it, onTestFinished, vi } from 'vitest';
import { Lease } from '../../src/balancing/lease.ts';
import type { Attempt } from '../../src/client/attempt.ts';
import { engineOf } from '../../src/client/call-engine.ts';
import { prepareExternal } from '../../src/client/external-request.ts';
import type { ResponseHeaders } from '../../src/client/response.ts';
import type { AttemptResult } from '../../src/client/transport.ts';
import {
  Retry,
  ServiceClient,
  type ServiceOptions,
  ServiceResponseError,
  StaticServiceDiscovery,
} from '../../src/index.ts';
import { service } from '../support/mesh-client.ts';
import { type Handler, json, startServer } from '../support/server.ts';

/**
 * Builds a transport that is new to the engine: it gives the statuses in turn, and records what is
 * done with each.
 */
function scripted(statuses: number[]) {
  const told: string[] = [];
  let sent = 0;
  const transport = async (attempt: Attempt): Promise<AttemptResult<string>> => {
    const number = ++sent;
    const status = statuses[number - 1] ?? 200;
    const head = { status, headers: {} as ResponseHeaders, instanceId: attempt.instance.instanceId };
    attempt.call.markSent();
    told.push(`send ${number}`);
    return {
      ...head,
      succeeded: attempt.judge(head),
      hold(lease: Lease) {
        told.push(`hold ${number}`);
        lease.release();
      },
      deliver(_call, failure) {
        told.push(failure === undefined ? `deliver ${number}` : `deliver ${number} as a failure`);
        return `response ${number}`;
      },
      discard: () => void told.push(`discard ${number}`),
      toError() {
        told.push(`error ${number}`);
        const { instanceId } = head;
        return new ServiceResponseError('failed', { serviceName: service, ...head, instanceId, body: '' });
      },
    };
  };
  return { transport, told };
}

function run(method: string, statuses: number[], options: ServiceOptions = {}) {
  const discovery = new StaticServiceDiscovery({ [service]: ['http://u1:80', 'http://u2:80'] });
  const client = new ServiceClient({ discovery, defaults: { retry: { backoff: () => 0 }, ...options } });
  onTestFinished(() => client.close());
  const engine = engineOf(client);
  const { transport, told } = scripted(statuses);
  const request = { service, method, path: '/', headers: ['idempotency-key', 'k'] };
  const policies = engine.policiesOf(service);
  const prepared = { ...prepareExternal(request), idempotent: method !== 'POST' };
  const state = engine.begin(request, prepared);
  const common = { state, policies, timeout: undefined, source: undefined };
  return { result: engine.run({ method: 'request', ...common, transport }), told, client };
}

describe('a transport that is new to the engine', () => {
  it('a transport that is new to the engine is told to hold a success and then to deliver it', async () => {
    const { result, told } = run('GET', [200]);
    await expect(result).resolves.toBe('response 1');
    expect(told).toEqual(['send 1', 'hold 1', 'deliver 1']);
  });

  it('the failure of a transport that is new to the engine is judged as an error, and discarded for the retry', async () => {
    const { result, told } = run('GET', [503, 200]);
    await expect(result).resolves.toBe('response 2');
    expect(told).toEqual(['send 1', 'error 1', 'discard 1', 'send 2', 'hold 2', 'deliver 2']);
  });

  it('the last failure of a transport that is new to the engine is delivered where no retry is left', async () => {
    const { result, told } = run('GET', [503], { retry: false });
    await expect(result).resolves.toBe('response 1');
    expect(told).toEqual(['send 1', 'error 1', 'deliver 1 as a failure']);
  });

  it('the response of a transport that is new to the engine is discarded where a policy rejects the call after it', async () => {
    const failure = new Error('rejected');
    const retry = new Retry({ shouldRetry: () => Promise.reject(failure) });
    const { result, told } = run('GET', [200], { retry });
    await expect(result).rejects.toBe(failure);
    expect(told).toEqual(['send 1', 'hold 1', 'discard 1']);
  });

  it('a transport that is new to the engine never repeats a call that must not be, though a Retry of the user wants it', async () => {
    const retry = new Retry({ maxAttempts: 3, backoff: () => 0, shouldRetry: () => true });
    const post = run('POST', [200], { retry });
    await expect(post.result).resolves.toBe('response 1');
    expect(post.told).toEqual(['send 1', 'hold 1', 'deliver 1']);
    const get = run('GET', [200], { retry });
    await expect(get.result).resolves.toBe('response 3');
    expect(get.told.filter((step) => step.startsWith('send'))).toEqual(['send 1', 'send 2', 'send 3']);
  });
});

it('a Retry looks for another well instance once for each failed attempt', async () => {
  const hasWellOther = vi.spyOn(Lease.prototype, 'hasWellOther');
  onTestFinished(() => hasWellOther.mockRestore());
  const { result, told } = run('GET', [503, 503, 503]);
  await expect(result).resolves.toBe('response 3');
  expect(told.at(-1)).toBe('deliver 3 as a failure');
  expect(hasWellOther.mock.results.map(({ value }) => value)).toEqual([true, false, false]);
});

describe('a call()', () => {
  it('a call() is not sent again after its success where a Retry of the user wants a POST again', async () => {
    const handler = vi.fn<Handler>((request, response) => {
      request.resume();
      json(response, { id: 1 });
    });
    const server = await startServer(handler);
    const discovery = new StaticServiceDiscovery({ [service]: [server.origin] });
    const retry = new Retry({ maxAttempts: 3, backoff: () => 0, shouldRetry: () => true });
    const client = new ServiceClient({ discovery, defaults: { retry } });
    onTestFinished(() => client.close());
    const call = { service, path: '/', body: {} };
    await expect(client.call({ ...call, method: 'POST' })).resolves.toEqual({ id: 1 });
    expect(handler).toHaveBeenCalledTimes(1);
    await expect(client.call({ ...call, method: 'PUT' })).resolves.toEqual({ id: 1 });
    expect(handler).toHaveBeenCalledTimes(4);
  });
});
