import { once } from 'node:events';
import { Agent as HttpAgent, request as httpRequest, type IncomingMessage } from 'node:http';
import { Readable } from 'node:stream';
import axios, { type AxiosInstance } from 'axios';
import got, { type Agents } from 'got';
import nodeFetch from 'node-fetch';
import { type Dispatcher, Pool, request as undiciRequest } from 'undici';
import {
  axiosAdapter,
  type Candidate,
  createFetch,
  createHttpAgent,
  LoadBalancer,
  ServiceClient,
  StaticServiceDiscovery,
} from '../../src/index.ts';

export interface Sent {
  path: string;
  signal: AbortSignal;
  /** Sent with PUT; without it is a GET. */
  body?: Readable | undefined;
}

type Chunks = AsyncIterable<Uint8Array | string>;

/** Sends a request; gives the body of the response as it comes. */
export type Sender = (sent: Sent) => Promise<Chunks>;

const SERVICE = 'user-service';
const MESH = `http://${SERVICE}`;

const methodOf = ({ body }: Sent) => (body === undefined ? 'GET' : 'PUT');

const instances: Candidate[] = [];

/** Calls that the balancers of this process still count. */
export function callsUnderWay(): number {
  return instances.reduce((sum, { inFlight }) => sum + inFlight, 0);
}

function meshClient(origin: string): ServiceClient {
  const discovery = new StaticServiceDiscovery({ [SERVICE]: [origin] });
  const loadBalancer = new LoadBalancer({ discovery });
  loadBalancer.on('join', ({ candidate }) => void instances.push(candidate));
  return new ServiceClient({
    loadBalancer,
    callerName: 'bench',
    defaults: { maxResponseSize: Infinity, timeout: 120_000, attemptTimeout: false },
  });
}

function byUndici(origin: string, dispatcher: Dispatcher): Sender {
  return async (sent) => {
    const { path, ...rest } = sent;
    return (await undiciRequest(`${origin}${path}`, { dispatcher, method: methodOf(sent), ...rest })).body;
  };
}

function byFetch(origin: string, fetch: typeof globalThis.fetch, options: object = {}): Sender {
  return async ({ path, signal, body }) => {
    const upload = body && { method: 'PUT', body: Readable.toWeb(body), duplex: 'half' };
    return (await fetch(`${origin}${path}`, { signal, ...upload, ...options } as RequestInit)).body!;
  };
}

function byAxios(client: AxiosInstance): Sender {
  return async (sent) => {
    const { path, signal, body } = sent;
    const response = await client.request<Chunks>({
      url: path,
      method: methodOf(sent),
      data: body,
      signal,
      responseType: 'stream',
      maxBodyLength: Infinity,
      maxRedirects: 0,
    });
    return response.data;
  };
}

function byGot(origin: string, agent: Agents): Sender {
  const client = got.extend({ agent, retry: { limit: 0 } });
  return async (sent) => {
    const { path, signal, body } = sent;
    const stream = client.stream(`${origin}${path}`, { method: methodOf(sent), signal });
    body?.pipe(stream);
    return stream;
  };
}

function byNodeHttp(origin: string, agent: HttpAgent): Sender {
  return async (sent) => {
    const { path, signal, body } = sent;
    const request = httpRequest(`${origin}${path}`, { agent, method: methodOf(sent), signal });
    if (body === undefined) request.end();
    else body.pipe(request);
    const [response] = (await once(request, 'response')) as [IncomingMessage];
    return response;
  };
}

function byNodeFetch(origin: string, agent: HttpAgent): Sender {
  return async (sent) => {
    const { path, signal, body } = sent;
    const response = await nodeFetch(`${origin}${path}`, { method: methodOf(sent), signal, body, agent });
    return response.body as unknown as Chunks;
  };
}

/**
 * Until Node 26 its fetch keeps all of an upload, whatever dispatcher it is given, for a redirect that it could not
 * follow: nodejs/undici#4058. What the dispatcher itself would hold is seen only where it does not.
 */
const FLAT = { redirect: 'error' };

const keepAlive = () => new HttpAgent({ keepAlive: true });

/** By name; what is ours is bold, and follows on the same client without it. */
export const senders: Record<string, (origin: string) => Sender> = {
  'undici request': (origin) => byUndici(origin, new Pool(origin)),
  '**holdfast ServiceClient.request**': (origin) => {
    const client = meshClient(origin);
    return async (sent) => (await client.request({ service: SERVICE, method: methodOf(sent), ...sent })).body;
  },
  '**undici request on holdfast dispatcher**': (origin) => byUndici(MESH, meshClient(origin).dispatcher),
  'fetch of Node': (origin) => byFetch(origin, fetch),
  "fetch of Node, redirect: 'error'": (origin) => byFetch(origin, fetch, FLAT),
  "**fetch of Node, redirect: 'error', on holdfast dispatcher**": (origin) =>
    byFetch(MESH, fetch, { ...FLAT, dispatcher: meshClient(origin).dispatcher }),
  '**holdfast createFetch**': (origin) => byFetch(MESH, createFetch(meshClient(origin))),
  axios: (origin) => byAxios(axios.create({ baseURL: origin, httpAgent: keepAlive() })),
  '**axios on holdfast axiosAdapter**': (origin) =>
    byAxios(axios.create({ baseURL: MESH, adapter: axiosAdapter(meshClient(origin)) })),
  'node:http': (origin) => byNodeHttp(origin, keepAlive()),
  '**node:http on holdfast createHttpAgent**': (origin) =>
    byNodeHttp(MESH, createHttpAgent(meshClient(origin))),
  got: (origin) => byGot(origin, { http: keepAlive() }),
  '**got on holdfast createHttpAgent**': (origin) => {
    const agent = createHttpAgent(meshClient(origin));
    return byGot(MESH, { http: agent, https: agent.https });
  },
  'node-fetch': (origin) => byNodeFetch(origin, keepAlive()),
  '**node-fetch on holdfast createHttpAgent**': (origin) =>
    byNodeFetch(MESH, createHttpAgent(meshClient(origin))),
};
