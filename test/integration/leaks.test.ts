import { getEventListeners } from 'node:events';
import axios from 'axios';
import { expect, it, onTestFinished } from 'vitest';
import { axiosAdapter, LoadBalancer, StaticServiceDiscovery } from '../../src/index.ts';
import {
  clientOf,
  collectGarbage,
  expectNothingLeftBy,
  forgetRequests,
  inTurn,
  service,
} from '../support/leaks.ts';
import { type Handler, json } from '../support/server.ts';

// A small form of `npm run trials -- leaks`.
it('6,000 calls leave heap, handles, listeners and timers where they began', {
  timeout: 60_000,
}, async () => {
  await expectNothingLeftBy(6_000);
});

it('a balancer keeps nothing of the call that it found an instance for last', async () => {
  const discovery = new StaticServiceDiscovery({ [service]: ['http://127.0.0.1:1', 'http://127.0.0.1:2'] });
  const balancer = new LoadBalancer({ discovery });
  onTestFinished(() => balancer.close());
  await balancer.getInstance(service);
  const acquire = () => {
    const options = { exclude: new Set(['127.0.0.1:1']) };
    balancer.tryAcquire(service, options)!.release();
    return new WeakRef(options);
  };
  const call = acquire();
  // A reference that was just made holds what it refers to until the end of the turn.
  await new Promise(setImmediate);
  collectGarbage();
  expect(call.deref()).toBeUndefined();
});

it('4,000 calls that share a signal leave no listener on it and cause no warning, retries and timeouts included', async () => {
  const warnings: Error[] = [];
  const onWarning = (warning: Error) => void warnings.push(warning);
  process.on('warning', onWarning);
  onTestFinished(() => void process.off('warning', onWarning));
  let requests = 0;
  const sometimes: Handler = (_request, response) => {
    forgetRequests();
    json(response, {}, ++requests % 50 === 0 ? 503 : 200);
  };
  const client = await clientOf(sometimes, sometimes);
  const { signal } = new AbortController();
  let most = 0;

  await inTurn(4_000, async (index) => {
    const timeout = index % 500 === 0 ? 1 : 2_000;
    const call = client.call({ service, path: '/', signal, timeout }).catch(() => {});
    most = Math.max(most, getEventListeners(signal, 'abort').length);
    await call;
  });

  expect(most).toBe(1);
  expect(getEventListeners(signal, 'abort')).toEqual([]);
  expect(warnings).toEqual([]);
});

it('an axiosAdapter made for each call leaves nothing behind', { timeout: 60_000 }, async () => {
  const client = await clientOf((_request, response) => {
    forgetRequests();
    response.end('{}');
  });
  const call = () => axios.get(`http://${service}/`, { adapter: axiosAdapter(client) });
  await inTurn(500, call);
  collectGarbage();
  const before = process.memoryUsage().heapUsed;
  await inTurn(1_000, call);
  collectGarbage();
  expect((process.memoryUsage().heapUsed - before) / 1_000).toBeLessThan(1_000);
});
