import { Readable } from 'node:stream';
import type { ReadableStream } from 'node:stream/web';
import { DECODABLE } from '../client/content-encoding.ts';
import {
  ADAPTED,
  type Adapted,
  createMeshFetch,
  type MeshFetch,
  type MeshFetchOptions,
  type MeshRequestInit,
} from '../client/mesh-fetch.ts';
import { isRetrieval } from '../client/methods.ts';
import { resolveClient } from '../client/resolve-client.ts';
import type { ServiceClient, ServiceClientOptions } from '../client/service-client.ts';
import { HoldfastError, InvalidRequestError, ServiceConnectionError, TimeoutError } from '../errors.ts';
import { MAX_DELAY } from '../internal/validate.ts';
import { checkSignal } from '../policies/abort.ts';

/** The part of the configuration of a request that the adapter reads. */
interface AxiosConfig {
  method?: string | undefined;
  data?: unknown;
  headers?:
    | {
        getContentType(): unknown;
        delete(name: string): unknown;
        set(name: string, value: string, rewrite: boolean): unknown;
      }
    | undefined;
  signal?: unknown;
  decompress?: boolean | undefined;
  timeout?: unknown;
  maxContentLength?: number | undefined;
  responseType?: string | undefined;
  maxRedirects?: number | undefined;
  fetchOptions?: object | undefined;
  onUploadProgress?: unknown;
  timeoutErrorMessage?: string | undefined;
  transitional?: { clarifyTimeoutError?: boolean | undefined } | undefined;
}

interface AxiosResponse {
  data: unknown;
  headers: Record<string, unknown>;
  config: unknown;
  request: unknown;
}

interface AxiosError extends Error {
  isAxiosError?: boolean | undefined;
  code?: string | undefined;
  config?: unknown;
  request?: unknown;
  response?: AxiosResponse | undefined;
}

type Adapter = (config: object) => Promise<AxiosResponse>;

interface Adapters {
  readonly plain: Adapter;
  readonly tracking: Adapter;
  urlOf(config: object): string;
}

/** The `adapter` of an axios instance. */
export interface AxiosMeshAdapter {
  // biome-ignore lint/suspicious/noExplicitAny: axios, whose types these are, may not be installed
  (config: object): Promise<any>;
  /** Waits for the calls under way, and closes the client if it was made for this adapter. */
  close(): Promise<void>;
}

/**
 * Creates an adapter for axios, from 1.12 on, that sends requests for services through the mesh.
 * Interceptors, transforms, errors, cancellation, timeouts and progress stay those of axios. A
 * `timeout` that is less than that of the service is also the deadline that the service is told.
 * The options of axios for the connections themselves (`httpAgent`, `proxy`, `socketPath`) have no
 * effect.
 *
 * Where there is no response, the `code` of the error is that of the connection (`ECONNREFUSED`),
 * that of axios for a timeout (`ECONNABORTED`), or that of the HoldfastError (`ERR_CIRCUIT_OPEN`),
 * which is its `cause`. The further options of a call go into `fetchOptions`:
 * `{ idempotencyKey, retries, hashKey, select }`.
 *
 * @throws TypeError naming the option that is not what it must be
 *
 * @example
 * const users = axios.create({ baseURL: 'http://user-service', adapter: axiosAdapter(client) });
 */
export function axiosAdapter(
  clientOrOptions: ServiceClient | ServiceClientOptions,
  options?: MeshFetchOptions,
): AxiosMeshAdapter {
  // axios's adapter for Node sends a body with any method, too.
  const rules = { owner: 'axiosAdapter()', allowGetBody: true };
  const fetch = createMeshFetch(resolveClient(clientOrOptions), options, rules);
  const adapter = async (config: AxiosConfig) => {
    adapters ??= await loadAdapters();
    const { plain, tracking, urlOf } = adapters;
    checkSignalOf(config);
    const method = config.method?.toUpperCase();
    // A Request, which tracking needs, has no body with GET and HEAD.
    const send = config.onUploadProgress && !isRetrieval(method ?? 'GET') ? tracking : plain;
    const request = {
      method,
      get url() {
        return urlOf(config);
      },
    };
    removeFormContentType(config);
    if (config.decompress !== false) config.headers?.set('accept-encoding', DECODABLE, false);
    const canceller = isBounded(config) || isStreamed(config) ? new AbortController() : undefined;
    try {
      return toNodeResponse(await send(withOptions(config, fetch, canceller)), config, request, canceller);
    } catch (error) {
      if ((error as AxiosError).response === undefined) canceller?.abort();
      if ((error as AxiosError).isAxiosError === true)
        completeError(error as AxiosError, config, request, canceller);
      throw error;
    }
  };
  return Object.assign(adapter, { close: fetch.close });
}

/**
 * Throws a TypeError that says what is wrong with a `signal`, which that of axios does not. axios
 * ignores a falsy one.
 */
function checkSignalOf({ signal }: AxiosConfig): void {
  if (signal) checkSignal(signal, "the 'signal' of a request");
}

let adapters: Adapters | undefined;

/**
 * Loads axios's own adapter for a fetch: with Requests, which it needs to track an upload, and
 * without them, which is faster. axios keeps an adapter for good for each fetch that it is given,
 * so all instances share one fetch.
 */
async function loadAdapters(): Promise<Adapters> {
  const { default: axios } = await import('axios');
  const adapterWith = (env: object) => axios.getAdapter('fetch', { env } as never) as Adapter;
  return {
    plain: adapterWith({ fetch: fetchThroughMesh, Request: null }),
    tracking: adapterWith({ fetch: fetchThroughMesh }),
    urlOf: (config) => axios.getUri(config),
  };
}

/** The fields that the adapter adds to the `fetchOptions` of a request. */
interface AdapterInit {
  meshFetch: MeshFetch;
  timeLimit: number | undefined;
  decode: boolean;
  /**
   * `canceller` ends the calls that axios leaves open: it does not read the body of a response that
   * is longer than allowed, and to cancel one whose progress it tracks it waits for more of it,
   * which may never come.
   */
  canceller: AbortController | undefined;
}

function fetchThroughMesh(input: string | Request, init: MeshRequestInit & AdapterInit): Promise<Response> {
  const { meshFetch, canceller, timeLimit, decode } = init;
  const adapted: MeshRequestInit & Adapted = { ...init, [ADAPTED]: { timeLimit, decode } };
  if (canceller !== undefined) {
    const own = init.signal ?? (input as Request).signal;
    adapted.signal = own ? AbortSignal.any([own, canceller.signal]) : canceller.signal;
  }
  return meshFetch(input, adapted);
}

function isBounded({ maxContentLength }: AxiosConfig): boolean {
  return maxContentLength !== undefined && maxContentLength > -1;
}

function isStreamed({ responseType }: AxiosConfig): boolean {
  return responseType?.toLowerCase() === 'stream';
}

/**
 * Adds the options for the fetch. Not every version of axios's adapter obeys `maxRedirects` itself,
 * and none tells a service its `timeout`.
 */
function withOptions(
  config: AxiosConfig,
  meshFetch: MeshFetch,
  canceller: AbortController | undefined,
): AxiosConfig {
  const redirect = config.maxRedirects === 0 && { redirect: 'manual' };
  const adapterInit: AdapterInit = {
    meshFetch,
    timeLimit: timeLimitOf(config),
    decode: config.decompress !== false,
    canceller,
  };
  return { ...config, fetchOptions: { ...config.fetchOptions, ...redirect, ...adapterInit } };
}

function timeLimitOf({ timeout }: AxiosConfig): number | undefined {
  const limit = Number(timeout);
  return limit >= 1 && limit <= MAX_DELAY ? limit : undefined;
}

/**
 * Removes a content type without a boundary from a form, so that the fetch sets it. Outside of
 * browsers axios takes a form that it has not made itself for a urlencoded one.
 */
function removeFormContentType({ data, headers }: AxiosConfig): void {
  if (!(data instanceof FormData)) return;
  if (!/boundary=/i.test(String(headers?.getContentType()))) headers?.delete('content-type');
}

/** Changes a response to the one that axios gives with its adapter for Node. */
function toNodeResponse(
  response: AxiosResponse,
  config: AxiosConfig,
  request: object,
  canceller: AbortController | undefined,
): AxiosResponse {
  const { data } = response;
  if (isStreamed(config)) response.data = toReadable(data as ReadableStream | null, canceller);
  else if (config.responseType?.toLowerCase() === 'arraybuffer') {
    response.data = Buffer.from(data as ArrayBuffer);
  }
  const { headers } = response;
  if (typeof headers['set-cookie'] === 'string') headers['set-cookie'] = [headers['set-cookie']];
  response.config = config;
  response.request = request;
  return response;
}

function toReadable(body: ReadableStream | null, canceller: AbortController | undefined): Readable {
  if (body === null) return Readable.from([]);
  const stream = Readable.fromWeb(body);
  const destroy = stream._destroy;
  stream._destroy = (error, done) => {
    destroy.call(stream, error, done);
    if (!stream.readableEnded) canceller?.abort();
  };
  return stream;
}

/** Changes an error to that of axios's adapter for Node, with the code and cause of the mesh. */
function completeError(
  error: AxiosError,
  config: AxiosConfig,
  request: object,
  canceller: AbortController | undefined,
): void {
  error.config = config;
  if (error.response !== undefined) toNodeResponse(error.response, config, request, canceller);
  const cause = findCause(error, (one) => one instanceof HoldfastError);
  if (!(cause instanceof InvalidRequestError)) error.request = request;
  if (cause !== undefined) {
    Object.assign(error, { code: codeOf(cause, config), message: cause.message, cause });
  } else if (error.code === 'ETIMEDOUT') {
    error.code = timeoutCodeOf(config);
    if (config.timeoutErrorMessage) error.message = config.timeoutErrorMessage;
  } else if (error.code === 'ERR_NETWORK') {
    nameConnectionError(error);
  }
}

/** Gives the error of a request outside the mesh the code and the message of its connection. */
function nameConnectionError(error: AxiosError): void {
  const cause = findCause(error, hasCode);
  if (cause === undefined) return;
  error.code = NODE_CODES[cause.code] ?? cause.code;
  if (cause.message !== '') error.message = cause.message;
}

function hasCode(error: Error): error is Error & { code: string } {
  return typeof (error as NodeJS.ErrnoException).code === 'string';
}

/** Finds the first of the causes of an error that is of a kind. */
function findCause<E extends Error>(error: Error, is: (cause: Error) => cause is E): E | undefined {
  for (let { cause } = error; cause instanceof Error; cause = cause.cause) if (is(cause)) return cause;
  return undefined;
}

function timeoutCodeOf({ transitional }: AxiosConfig): string {
  return transitional?.clarifyTimeoutError ? 'ETIMEDOUT' : 'ECONNABORTED';
}

/** The codes of Node for the same errors as those of undici. */
const NODE_CODES: Readonly<Record<string, string>> = {
  UND_ERR_SOCKET: 'ECONNRESET',
  UND_ERR_CONNECT_TIMEOUT: 'ETIMEDOUT',
};

function codeOf(error: HoldfastError, config: AxiosConfig): string {
  if (error instanceof TimeoutError) return timeoutCodeOf(config);
  const { code } = (error.cause ?? {}) as NodeJS.ErrnoException;
  return error instanceof ServiceConnectionError && code !== undefined
    ? (NODE_CODES[code] ?? code)
    : error.code;
}
