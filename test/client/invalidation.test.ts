import { request as httpRequest } from 'node:http';
import axios from 'axios';
import { request } from 'undici';
import { expect, it, onTestFinished } from 'vitest';
import {
  axiosAdapter,
  createDispatcher,
  createFetch,
  createHttpAgent,
  type ServiceClient,
} from '../../src/index.ts';
import { clientOf, service, url } from '../support/mesh-client.ts';
import { json, startServer } from '../support/server.ts';

const put = { method: 'PUT' } as const;

/**
 * The clients that write. Each call resolves as soon as its caller can see the head of the
 * response.
 */
const writers: readonly [string, (client: ServiceClient) => Promise<unknown>][] = [
  ['call()', (client) => client.call({ service, path: '/a', ...put })],
  ['request()', (client) => client.request({ service, path: '/a', ...put })],
  ['createFetch()', (client) => createFetch(client)(`${url}/a`, put)],
  ['createDispatcher()', (client) => request(`${url}/a`, { ...put, dispatcher: createDispatcher(client) })],
  [
    'createDispatcher() in the built-in fetch',
    (client) => fetch(`${url}/a`, { ...put, dispatcher: createDispatcher(client) } as RequestInit),
  ],
  ['axiosAdapter()', (client) => axios.put(`${url}/a`, undefined, { adapter: axiosAdapter(client) })],
  [
    'createHttpAgent()',
    (client) => {
      const agent = createHttpAgent(client);
      onTestFinished(() => agent.destroy());
      return new Promise((resolve, reject) => {
        const sent = httpRequest(`${url}/a`, { ...put, agent }, (response) => resolve(response.resume()));
        sent.on('error', reject).end();
      });
    },
  ],
];

it.each(writers)('a write through %s makes the next read of its path a new request', async (_name, write) => {
  let version = 1;
  const server = await startServer((incoming, response) => {
    incoming.resume();
    if (incoming.method === 'PUT') version++;
    json(response, { version }, 200, { 'cache-control': 'max-age=60' });
  });
  const client = clientOf([server], { cache: {} });
  const read = () => client.call({ service, path: '/a' });
  for (const expected of [1, 2, 3, 4]) {
    expect(await read()).toEqual({ version: expected });
    expect(await read()).toEqual({ version: expected });
    // The read must not wait for anything else: the caller may read as soon as it knows.
    expect(await write(client).then(read)).toEqual({ version: expected + 1 });
  }
  expect(server.requests).toHaveLength(9);
});
