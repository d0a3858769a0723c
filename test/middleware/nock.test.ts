import axios from 'axios';
import nock from 'nock';
import { request, fetch as undiciFetch } from 'undici';
import { afterEach, beforeEach, describe, expect, it, onTestFinished } from 'vitest';
import {
  axiosAdapter,
  createDispatcher,
  createFetch,
  ServiceClient,
  StaticServiceDiscovery,
} from '../../src/index.ts';

/** The address of the service: nock stands in for its instances, not for its name. */
const instance = 'http://127.0.0.1:8001';

beforeEach(() => nock.disableNetConnect());

afterEach(() => {
  nock.cleanAll();
  nock.enableNetConnect();
});

/** A function of an application that orders something, over the HTTP client of its choice. */
type Order = (item: string) => Promise<unknown>;

const url = 'http://order-service/orders?from=test';
const headers = { 'content-type': 'application/json', 'idempotency-key': 'key-1' };

const clients: Record<string, (client: ServiceClient) => Order> = {
  'client.call()': (client) => (item) =>
    client.call({
      service: 'order-service',
      method: 'POST',
      path: '/orders?from=test',
      body: { item },
      idempotencyKey: 'key-1',
    }),
  'createFetch()': (client) => {
    const fetch = createFetch(client);
    return async (item) =>
      contentOf(await fetch(url, { method: 'POST', body: JSON.stringify({ item }), headers }));
  },
  'axiosAdapter()': (client) => {
    const orders = axios.create({ adapter: axiosAdapter(client) });
    return async (item) => (await orders.post(url, { item }, { headers })).data;
  },
  "createDispatcher() in undici's request": (client) => {
    const dispatcher = createDispatcher(client);
    return async (item) => {
      const body = JSON.stringify({ item });
      const response = await request(url, { method: 'POST', body, headers, dispatcher });
      if (response.statusCode >= 400) throw new Error(`status ${response.statusCode}`);
      return response.body.json();
    };
  },
  "createDispatcher() in undici's fetch": (client) => {
    const dispatcher = createDispatcher(client);
    return async (item) =>
      contentOf(
        await undiciFetch(url, { method: 'POST', body: JSON.stringify({ item }), headers, dispatcher }),
      );
  },
  'createDispatcher() in the built-in fetch': (client) => {
    const dispatcher = createDispatcher(client);
    return async (item) => {
      const init = { method: 'POST', body: JSON.stringify({ item }), headers, dispatcher };
      return contentOf(await fetch(url, init as RequestInit));
    };
  },
};

async function contentOf(response: {
  ok: boolean;
  status: number;
  json(): Promise<unknown>;
}): Promise<unknown> {
  if (!response.ok) throw new Error(`status ${response.status}`);
  return response.json();
}

describe.each(Object.entries(clients))('code over %s, tested with nock', (_name, orderWith) => {
  function order(item: string): Promise<unknown> {
    const discovery = new StaticServiceDiscovery({ 'order-service': [instance] });
    const client = new ServiceClient({ discovery });
    onTestFinished(() => client.close());
    return orderWith(client)(item);
  }

  it('nock stands in for an instance that responds', async () => {
    const scope = nock(instance, { reqheaders: { 'idempotency-key': 'key-1' } })
      .post('/orders', { item: 'pear' })
      .query({ from: 'test' })
      .reply(201, { id: 'o1' });
    await expect(order('pear')).resolves.toEqual({ id: 'o1' });
    scope.done();
  });

  it('nock stands in for an instance that fails at first', async () => {
    const scope = nock(instance)
      .post('/orders?from=test')
      .reply(503)
      .post('/orders?from=test')
      .reply(200, { id: 'o2' });
    await expect(order('pear')).resolves.toEqual({ id: 'o2' });
    scope.done();
  });

  it('nock stands in for an instance that rejects a request, or cannot be reached', async () => {
    nock(instance).post('/orders?from=test').reply(409, { why: 'sold out' });
    await expect(order('pear')).rejects.toThrow('409');
    const scope = nock(instance).post('/orders?from=test').times(3).replyWithError('the network is down');
    await expect(order('pear')).rejects.toThrow();
    scope.done();
  });

  it('nock keeps a call to which it has no response from the network', async () => {
    await expect(order('pear')).rejects.toThrow();
  });
});
