import { type Agent, type ClientRequest, request as httpRequest, type IncomingMessage } from 'node:http';
import { text } from 'node:stream/consumers';
import axios from 'axios';
import got from 'got';
import { expect, onTestFinished, vi } from 'vitest';
import {
  axiosAdapter,
  createDispatcher,
  createFetch,
  createHttpAgent,
  ServiceClient,
  type ServiceOptions,
  ServiceResponseError,
  StaticServiceDiscovery,
} from '../../src/index.ts';
import { rejectionOf } from '../policies/helpers.ts';
import { type Handler, startServer, type TestServer } from '../support/server.ts';

const service = 'user-service';

export interface Call {
  readonly method?: 'GET' | 'POST';
  readonly body?: string;
}

/** A response, whatever its status, with its body read to the end. */
export interface Reply {
  readonly status: number;
  readonly body: string;
}

type Send = (call: Call) => Promise<Reply>;

/** A way to call a service through the mesh, and where it differs from the others. */
export interface Adapter {
  readonly name: string;
  /**
   * Says why it does not send a request again that an instance may have had. The others do where
   * that can do no harm.
   */
  readonly sendsOnce?: string;
  /**
   * Says why it retries after a response that breaks off. The others do not, since the caller has a
   * part of it.
   */
  readonly readsWhole?: string;
  open(client: ServiceClient): Promise<Send>;
}

const url = `http://${service}/users/u1`;
const ownRequest = 'node:http has written it to its socket';

/** Rejects other hosts: a client that follows redirects by itself could reach them otherwise. */
const strict = true;

export const adapters: readonly Adapter[] = [
  {
    name: 'client.call()',
    readsWhole: 'it reads the response before the caller gets any of it',
    async open(client) {
      return async ({ method = 'GET', body }) => {
        try {
          return { status: 200, body: await client.call({ service, path: '/users/u1', method, body }) };
        } catch (error) {
          if (!(error instanceof ServiceResponseError)) throw error;
          return { status: error.status, body: error.body as string };
        }
      };
    },
  },
  {
    name: "createDispatcher() in undici's request",
    async open(client) {
      const { request } = await import('undici');
      const dispatcher = createDispatcher(client, { strict });
      return async ({ method = 'GET', body = null }) => {
        const response = await request(url, { method, body, dispatcher });
        return { status: response.statusCode, body: await response.body.text() };
      };
    },
  },
  {
    name: "createDispatcher() in undici's fetch",
    async open(client) {
      const { fetch } = await import('undici');
      const dispatcher = createDispatcher(client, { strict });
      return async (call) => replyOf(await fetch(url, { ...call, dispatcher }));
    },
  },
  {
    name: 'createDispatcher() in the built-in fetch',
    async open(client) {
      const dispatcher = createDispatcher(client, { strict });
      return async (call) => replyOf(await fetch(url, { ...call, dispatcher } as RequestInit));
    },
  },
  {
    name: 'createFetch()',
    async open(client) {
      const fetch = createFetch(client);
      return async (call) => replyOf(await fetch(url, call));
    },
  },
  {
    name: 'axiosAdapter()',
    async open(client) {
      const api = axios.create({
        adapter: axiosAdapter(client),
        validateStatus: null,
        transformResponse: [],
      });
      return async ({ method = 'GET', body }) => {
        const { status, data } = await api.request({ url, method, data: body });
        return { status, body: data };
      };
    },
  },
  {
    name: 'createHttpAgent() in node:http',
    sendsOnce: ownRequest,
    async open(client) {
      const agent = createHttpAgent(client, { strict });
      onTestFinished(() => agent.destroy());
      return (call) => overHttp(agent, call);
    },
  },
  {
    name: 'createHttpAgent() in got',
    sendsOnce: ownRequest,
    async open(client) {
      const agent = createHttpAgent(client, { strict });
      onTestFinished(() => agent.destroy());
      const users = got.extend({ agent: { http: agent }, retry: { limit: 0 }, throwHttpErrors: false });
      return async (call) => {
        const { statusCode, body } = await users(url, call);
        return { status: statusCode, body };
      };
    },
  },
];

async function replyOf(response: { status: number; text(): Promise<string> }): Promise<Reply> {
  return { status: response.status, body: await response.text() };
}

async function overHttp(agent: Agent, { method = 'GET', body }: Call): Promise<Reply> {
  const request: ClientRequest = httpRequest(url, { agent, method });
  const response = await new Promise<IncomingMessage>((resolve, reject) => {
    request.on('response', resolve).on('error', reject).end(body);
  });
  return { status: response.statusCode!, body: await text(response) };
}

/** The client and the instances of a scenario. */
interface Mesh {
  readonly adapter: Adapter;
  readonly send: Send;
  readonly instances: readonly TestServer[];
}

export interface Scenario {
  readonly name: string;
  readonly options?: ServiceOptions;
  readonly instances: readonly Handler[];
  run(mesh: Mesh): Promise<void>;
}

export async function play(
  { options = {}, instances: handlers, run }: Scenario,
  adapter: Adapter,
): Promise<void> {
  const instances = await Promise.all(handlers.map((handler) => startServer(handler)));
  const discovery = new StaticServiceDiscovery({ [service]: instances.map(({ origin }) => origin) });
  const client = new ServiceClient({ discovery, services: { [service]: options } });
  onTestFinished(() => client.close());
  await run({ adapter, instances, send: await adapter.open(client) });
}

const works: Handler = (request, response) => void request.resume().on('end', () => response.end('fine'));

const down: Handler = (request, response) => {
  request.resume();
  response.writeHead(503).end('down');
};

const hangs: Handler = (request) => void request.resume();

const fine: Reply = { status: 200, body: 'fine' };

/** Checks that a bad instance of two fails no call, or only the few that it got. */
async function outlive({ adapter, send, instances: [bad] }: Mesh): Promise<void> {
  let failed = 0;
  for (let call = 0; call < 20; call++) {
    const reply = await send({}).catch(() => undefined);
    if (reply?.status !== 200) failed++;
  }
  expect(bad!.requests.length).toBeGreaterThan(0);
  if (adapter.sendsOnce === undefined) expect(failed).toBe(0);
  else expect(failed).toBe(bad!.requests.length);
  // After five it is ejected.
  expect(bad!.requests.length).toBeLessThanOrEqual(5);
}

export const scenarios: readonly Scenario[] = [
  {
    name: 'an instance that is killed fails no call',
    instances: [works, works],
    async run({ adapter, send, instances: [killed, other] }) {
      await vi.waitFor(async () => {
        expect(await send({})).toEqual(fine);
        expect(killed!.requests.length * other!.requests.length).toBeGreaterThan(0);
      });
      await killed!.stop();
      let failed = 0;
      for (let call = 0; call < 20; call++) {
        const reply = await send({}).catch(() => undefined);
        if (reply === undefined) failed++;
        else expect(reply).toEqual(fine);
      }
      // One request may be written to a socket before that is known to be closed.
      expect(failed).toBeLessThanOrEqual(adapter.sendsOnce === undefined ? 0 : 1);
    },
  },
  {
    name: 'an instance that no longer responds gets no more calls once it has failed a few',
    options: { attemptTimeout: 250 },
    instances: [hangs, works],
    run: outlive,
  },
  {
    name: 'an instance that responds with 503 gets no more calls once it has failed a few',
    instances: [down, works],
    run: outlive,
  },
  {
    name: 'a response that breaks off is an error, and its request is not sent again once the caller has a part of it',
    instances: [
      (request, response) => {
        request.resume();
        response.writeHead(200, { 'content-length': 10 });
        response.write('fine', () => setImmediate(() => request.socket.destroy()));
      },
    ],
    async run({ adapter, send, instances: [server] }) {
      await rejectionOf(send({}));
      expect(server!.requests).toHaveLength(adapter.readsWhole === undefined ? 1 : 3);
    },
  },
  {
    name: 'a response whose Retry-After is past the deadline is given to the caller at once',
    options: { timeout: 2_000 },
    instances: [
      (request, response) => {
        request.resume();
        response.writeHead(503, { 'retry-after': '60' }).end('later');
      },
    ],
    async run({ send, instances: [server] }) {
      const began = performance.now();
      expect(await send({})).toEqual({ status: 503, body: 'later' });
      expect(performance.now() - began).toBeLessThan(1_500);
      expect(server!.requests).toHaveLength(1);
    },
  },
  {
    name: 'a POST whose connection is reset after it was sent is not sent twice',
    instances: [
      (request) => void request.resume().on('end', () => request.socket.destroy()),
      (request) => void request.resume().on('end', () => request.socket.destroy()),
    ],
    async run({ send, instances }) {
      await rejectionOf(send({ method: 'POST', body: 'order' }));
      expect(instances.flatMap(({ requests }) => requests)).toHaveLength(1);
    },
  },
  {
    name: 'a POST is sent once, and gets its response',
    instances: [works],
    async run({ send, instances: [server] }) {
      expect(await send({ method: 'POST', body: 'order' })).toEqual(fine);
      expect(server!.requests).toMatchObject([{ method: 'POST', headers: { 'content-length': '5' } }]);
    },
  },
  {
    name: 'a redirect to another host sends no request there',
    instances: [
      (request, response) => {
        request.resume();
        response.writeHead(302, { location: elsewhere.origin }).end('elsewhere');
      },
    ],
    async run({ send, instances: [server] }) {
      elsewhere = await startServer(works);
      // It is an error, or the response as it is where the client follows no redirects.
      const reply = await send({}).catch(() => undefined);
      expect([undefined, 302]).toContain(reply?.status);
      expect(server!.requests).toHaveLength(1);
      expect(elsewhere.requests).toHaveLength(0);
    },
  },
];

let elsewhere: TestServer;
