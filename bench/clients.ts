import { fork } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { type ClientRequest, Agent as HttpAgent } from 'node:http';
import axios from 'axios';
import axiosRetry from 'axios-retry';
import {
  ConsecutiveBreaker,
  circuitBreaker,
  ExponentialBackoff,
  handleAll,
  retry,
  TimeoutStrategy,
  timeout,
  wrap,
} from 'cockatiel';
import got from 'got';
import ky from 'ky';
import { Agent, type Dispatcher, Pool, RetryAgent, fetch as undiciFetch } from 'undici';
import {
  axiosAdapter,
  createDispatcher,
  createFetch,
  createHttpAgent,
  ServiceClient,
  StaticServiceDiscovery,
} from '../src/index.ts';
import { median, table } from './support/measure.ts';
import { type Contender, callsPerSecond } from './support/turns.ts';

const CONCURRENCY = 64;
const PATH = '/users/u1';
/** The service, as the mesh calls it. */
const ORIGIN = 'http://user-service';

export const contenders: Record<string, Contender> = {
  'undici Pool.dispatch + JSON.parse (the limit)': (origin) => {
    const pool = new Pool(origin);
    return () => dispatch(pool, undefined, sentHeaders());
  },
  'undici Pool.request + json()': (origin) => {
    const pool = new Pool(origin);
    return async () =>
      (await pool.request({ path: PATH, method: 'GET', headers: sentHeaders() })).body.json();
  },
  '**holdfast ServiceClient.call**, everything on': (origin) => {
    const client = meshClient(origin);
    return () => client.call({ service: 'user-service', path: PATH });
  },
  '**holdfast dispatcher**.dispatch + JSON.parse, everything on': (origin) => {
    const dispatcher = createDispatcher(meshClient(origin));
    return () => dispatch(dispatcher, ORIGIN);
  },
  '**holdfast dispatcher**.request + json(), everything on': (origin) => {
    const dispatcher = createDispatcher(meshClient(origin));
    return async () => (await dispatcher.request({ origin: ORIGIN, path: PATH, method: 'GET' })).body.json();
  },
  'undici RetryAgent.request + json()': (origin) => {
    const agent = new RetryAgent(new Pool(origin));
    return async () =>
      (await agent.request({ origin, path: PATH, method: 'GET', headers: sentHeaders() })).body.json();
  },
  'undici fetch': (origin) => {
    const dispatcher = createSendingAgent();
    return async () => (await undiciFetch(`${origin}${PATH}`, { dispatcher })).json();
  },
  '**holdfast createFetch**, everything on': (origin) => {
    const fetch = createFetch(meshClient(origin));
    return async () => (await fetch(`${ORIGIN}${PATH}`)).json();
  },
  'undici fetch in cockatiel: retry, breaker, timeout': (origin) => {
    const policy = wrap(
      retry(handleAll, { maxAttempts: 2, backoff: new ExponentialBackoff() }),
      circuitBreaker(handleAll, { halfOpenAfter: 10_000, breaker: new ConsecutiveBreaker(5) }),
      timeout(10_000, TimeoutStrategy.Aggressive),
    );
    const dispatcher = createSendingAgent();
    // Within the policy: it aborts the signal when the call is over.
    return () =>
      policy.execute(async ({ signal }) =>
        (await undiciFetch(`${origin}${PATH}`, { signal, dispatcher })).json(),
      );
  },
  'ky (on the built-in fetch)': (origin) => () => ky(`${origin}${PATH}`, { retry: 0 }).json(),
  '**ky on holdfast createFetch**': (origin) => {
    const client = ky.create({ fetch: createFetch(meshClient(origin)), retry: 0 });
    return () => client(`${ORIGIN}${PATH}`).json();
  },
  got: (origin) => {
    const client = got.extend({
      agent: { http: new SendingAgent({ keepAlive: true }) },
      retry: { limit: 0 },
    });
    return () => client(`${origin}${PATH}`).json();
  },
  '**got on holdfast createHttpAgent**': (origin) => {
    const agent = createHttpAgent(meshClient(origin));
    const client = got.extend({ agent: { http: agent, https: agent.https }, retry: { limit: 0 } });
    return () => client(`${ORIGIN}${PATH}`).json();
  },
  'got with its retry': (origin) => {
    const client = got.extend({ agent: { http: new SendingAgent({ keepAlive: true }) } });
    return () => client(`${origin}${PATH}`).json();
  },
  axios: (origin) => {
    const client = axios.create({ httpAgent: new SendingAgent({ keepAlive: true }) });
    return async () => (await client.get(`${origin}${PATH}`)).data;
  },
  '**axios on holdfast axiosAdapter**': (origin) => {
    const client = axios.create({ adapter: axiosAdapter(meshClient(origin)) });
    return async () => (await client.get(`${ORIGIN}${PATH}`)).data;
  },
  'axios with axios-retry': (origin) => {
    const client = axios.create({ httpAgent: new SendingAgent({ keepAlive: true }) });
    axiosRetry(client, { retries: 2, retryDelay: axiosRetry.exponentialDelay });
    return async () => (await client.get(`${origin}${PATH}`)).data;
  },
};

/** The baseline of each contender: the same client without it. */
const WITHOUT: Record<string, string> = {
  '**holdfast ServiceClient.call**, everything on': 'undici Pool.request + json()',
  '**holdfast dispatcher**.dispatch + JSON.parse, everything on':
    'undici Pool.dispatch + JSON.parse (the limit)',
  '**holdfast dispatcher**.request + json(), everything on': 'undici Pool.request + json()',
  'undici RetryAgent.request + json()': 'undici Pool.request + json()',
  '**holdfast createFetch**, everything on': 'undici fetch',
  'undici fetch in cockatiel: retry, breaker, timeout': 'undici fetch',
  '**ky on holdfast createFetch**': 'ky (on the built-in fetch)',
  '**got on holdfast createHttpAgent**': 'got',
  'got with its retry': 'got',
  '**axios on holdfast axiosAdapter**': 'axios',
  'axios with axios-retry': 'axios',
};

function meshClient(origin: string): ServiceClient {
  const discovery = new StaticServiceDiscovery({ 'user-service': [origin] });
  return new ServiceClient({ discovery, callerName: 'bench' });
}

/** The headers that a ServiceClient sends, which its peers send too, but for ky: all make the same request. */
function sentHeaders(): Record<string, string> {
  return { 'x-request-id': randomUUID(), 'x-service-name': 'bench', 'x-request-timeout': '10000' };
}

/** An agent of Node's that adds the headers below a client, where they cost least. */
class SendingAgent extends HttpAgent {
  addRequest(request: ClientRequest, options: object): void {
    for (const [name, value] of Object.entries(sentHeaders())) request.setHeader(name, value);
    const { addRequest } = HttpAgent.prototype as unknown as SendingAgent;
    addRequest.call(this, request, options);
  }
}

/** The same for undici's fetch. */
function createSendingAgent(): Dispatcher {
  return new Agent().compose((dispatch) => (options, handler) => {
    return dispatch({ ...options, headers: { ...(options.headers as object), ...sentHeaders() } }, handler);
  });
}

function dispatch(
  dispatcher: Dispatcher,
  origin?: string,
  headers?: Record<string, string>,
): Promise<unknown> {
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = [];
    dispatcher.dispatch(
      { ...(origin && { origin }), path: PATH, method: 'GET', ...(headers && { headers }) },
      {
        onRequestStart() {},
        onResponseStart() {},
        onResponseData: (_controller, chunk) => void chunks.push(chunk),
        onResponseEnd: () => resolve(JSON.parse(Buffer.concat(chunks).toString())),
        onResponseError: (_controller, error) => reject(error),
      },
    );
  });
}

export async function clients(): Promise<void> {
  const server = fork(new URL('./support/server.ts', import.meta.url));
  const [port] = (await once(server, 'message')) as [number];
  const names = Object.keys(contenders);
  const rates = await callsPerSecond({
    module: import.meta.url,
    names,
    argument: `http://127.0.0.1:${port}`,
    concurrency: CONCURRENCY,
  });
  server.disconnect();
  const ratesOf = (name: string) => rates[names.indexOf(name)]!;
  const ratio = (own: number[], others: number[]) =>
    median(own.map((rate, round) => rate / others[round]!)).toFixed(2);
  table(
    `JSON calls, ${CONCURRENCY} at a time, keep-alive, server in another process`,
    ['', 'calls a second', 'to the same without', 'to Pool.dispatch'],
    rates.map((own, index) => {
      const name = names[index]!;
      const without = WITHOUT[name];
      return [
        name,
        median(own).toFixed(0),
        without === undefined ? '' : ratio(own, ratesOf(without)),
        ratio(own, rates[0]!),
      ];
    }),
  );
}
