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
  method?: string;
  data?: unknown;
  headers?: {
    getContentType(): unknown;
    delete(name: string): unknown;
    set(name: string, value: string, rewrite: boolean): unknown;
  };
  signal?: unknown;
  decompress?: boolean;
  timeout?: unknown;
  maxContentLength?: number;
  responseType?: string;
  maxRedirects?: number;
  fetchOptions?: object;
  onUploadProgress?: unknown;
  timeoutErrorMessage?: string;
  transitional?: { clarifyTimeoutError?: boolean };
}

interface AxiosResponse {
  data: unknown;
  headers: Record<string, unknown>;
  config: unknown;
  request: unknown;
}

interface AxiosError extends Error {
  isAxiosError?: boolean;
  code?: string;
  config?: unknown;
  request?: unknown;
  response?: AxiosResponse;
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
  /** Waits for the calls under way, and closes the client if it was made for this. */
  close(): Promise<void>;
}

/**
 * An adapter for axios, from 1.12 on, that sends requests for services through the mesh.
 * Interceptors, transforms, the errors, cancellation, timeouts and progress stay those of axios; a
 * `timeout` is also the deadline that the service is told, where it is less than the service's.
 * What axios offers for the connections themselves (`httpAgent`, `proxy`, `socketPath`) has no
 * effect.
 *
 * Without a response, the `code` of the error is that of the connection (`ECONNREFUSED`), of axios
 * for a timeout (`ECONNABORTED`), or that of the HoldfastError (`ERR_CIRCUIT_OPEN`), which is its
 * `cause`. Further options of a call go into `fetchOptions`: `{ idempotencyKey, retries, hashKey,
 * select }`.
 *
 * @example
 * const users = axios.create({ baseURL: 'http://user-service', adapter: axiosAdapter(client) });
 */
export function axiosAdapter(
  clientOrOptions: ServiceClient | ServiceClientOptions,
  options?: MeshFetchOptions,
): AxiosMeshAdapter {
  // As with axios's adapter for Node.
  const rules = { owner: 'axiosAdapter()', allowGetBody: true };
  const fetch = createMeshFetch(resolveClient(clientOrOptions), options, rules);
  const adapter = async (config: AxiosConfig) => {
    adapters ??= await loadAdapters();
    const { plain, tracking, urlOf } = adapters;
    rejectNoSignal(config);
    const method = config.method?.toUpperCase();
    // A Request, which tracking needs, has no body with GET and HEAD.
    const send = config.onUploadProgress && !isRetrieval(method ?? 'GET') ? tracking : plain;
    const request = {
      method,
      get url() {
        return urlOf(config);
      },
    };
    letFormSayItsType(config);
    if (config.decompress !== false) config.headers?.set('accept-encoding', DECODABLE, false);
    const letGo = bounded(config) || streamed(config) ? new AbortController() : undefined;
    try {
      return asInNode(await send(withOptions(config, fetch, letGo)), config, request, letGo);
    } catch (error) {
      if ((error as AxiosError).response === undefined) letGo?.abort();
      if ((error as AxiosError).isAxiosError === true) finish(error as AxiosError, config, request, letGo);
      throw error;
    }
  };
  return Object.assign(adapter, { close: fetch.close });
}

/**
 * axios itself would throw a TypeError that does not say what is wrong. What is falsy it ignores.
 */
function rejectNoSignal({ signal }: AxiosConfig): void {
  if (signal) checkSignal(signal, "the 'signal' of a request");
}

let adapters: Adapters | undefined;

/**
 * axios's own adapter for a fetch: with Requests, which it needs to track an upload, and without,
 * which is faster. axios keeps one for good for each fetch that it is given, so that it is given
 * one for all.
 */
async function loadAdapters(): Promise<Adapters> {
  const { default: axios } = await import('axios');
  const adapterWith = (env: object) => axios.getAdapter('fetch', { env } as never) as Adapter;
  return {
    plain: adapterWith({ fetch: fetchThrough, Request: null }),
    tracking: adapterWith({ fetch: fetchThrough }),
    urlOf: (config) => axios.getUri(config),
  };
}

/** The fields that an adapter adds to the `fetchOptions` of a request. */
interface Through {
  meshFetch: MeshFetch;
  timeLimit: number | undefined;
  decode: boolean;
  /**
   * axios leaves the body of a response that is longer than it may be unread, and to cancel one
   * that it tracks it waits for more of it, which may never come: this ends those calls.
   */
  letGo: AbortController | undefined;
}

function fetchThrough(input: string | Request, init: MeshRequestInit & Through): Promise<Response> {
  const { meshFetch, letGo, timeLimit, decode } = init;
  const adapted: MeshRequestInit & Adapted = { ...init, [ADAPTED]: { timeLimit, decode } };
  if (letGo !== undefined) {
    const own = init.signal ?? (input as Request).signal;
    adapted.signal = own ? AbortSignal.any([own, letGo.signal]) : letGo.signal;
  }
  return meshFetch(input, adapted);
}

function bounded({ maxContentLength }: AxiosConfig): boolean {
  return maxContentLength !== undefined && maxContentLength > -1;
}

function streamed({ responseType }: AxiosConfig): boolean {
  return responseType?.toLowerCase() === 'stream';
}

/**
 * Not every version of axios's adapter looks at `maxRedirects` itself; none tells a service of its
 * `timeout`.
 */
function withOptions(
  config: AxiosConfig,
  meshFetch: MeshFetch,
  letGo: AbortController | undefined,
): AxiosConfig {
  const redirect = config.maxRedirects === 0 && { redirect: 'manual' };
  const through: Through = {
    meshFetch,
    timeLimit: timeLimitOf(config),
    decode: config.decompress !== false,
    letGo,
  };
  return { ...config, fetchOptions: { ...config.fetchOptions, ...redirect, ...through } };
}

function timeLimitOf({ timeout }: AxiosConfig): number | undefined {
  const limit = Number(timeout);
  return limit >= 1 && limit <= MAX_DELAY ? limit : undefined;
}

/**
 * axios takes a form for one that is urlencoded outside of browsers, unless it has made it itself.
 */
function letFormSayItsType({ data, headers }: AxiosConfig): void {
  if (!(data instanceof FormData)) return;
  if (!/boundary=/i.test(String(headers?.getContentType()))) headers?.delete('content-type');
}

/** Gives the response the shape that the adapter of axios for Node gives it. */
function asInNode(
  response: AxiosResponse,
  config: AxiosConfig,
  request: object,
  letGo: AbortController | undefined,
): AxiosResponse {
  const { data } = response;
  if (streamed(config)) response.data = readable(data as ReadableStream | null, letGo);
  else if (config.responseType?.toLowerCase() === 'arraybuffer') {
    response.data = Buffer.from(data as ArrayBuffer);
  }
  const { headers } = response;
  if (typeof headers['set-cookie'] === 'string') headers['set-cookie'] = [headers['set-cookie']];
  response.config = config;
  response.request = request;
  return response;
}

function readable(body: ReadableStream | null, letGo: AbortController | undefined): Readable {
  if (body === null) return Readable.from([]);
  const stream = Readable.fromWeb(body);
  const destroy = stream._destroy;
  stream._destroy = (error, done) => {
    destroy.call(stream, error, done);
    if (!stream.readableEnded) letGo?.abort();
  };
  return stream;
}

/** The error in the terms of axios's adapter for Node, and of the mesh. */
function finish(
  error: AxiosError,
  config: AxiosConfig,
  request: object,
  letGo: AbortController | undefined,
): void {
  error.config = config;
  if (error.response !== undefined) asInNode(error.response, config, request, letGo);
  const cause = causeOf(error);
  if (!(cause instanceof InvalidRequestError)) error.request = request;
  if (cause !== undefined) {
    Object.assign(error, { code: codeOf(cause, config), message: cause.message, cause });
  } else if (error.code === 'ETIMEDOUT') {
    error.code = timeoutCode(config);
    if (config.timeoutErrorMessage) error.message = config.timeoutErrorMessage;
  }
}

function causeOf(error: Error): HoldfastError | undefined {
  for (let { cause } = error; cause instanceof Error; cause = cause.cause) {
    if (cause instanceof HoldfastError) return cause;
  }
  return undefined;
}

function timeoutCode({ transitional }: AxiosConfig): string {
  return transitional?.clarifyTimeoutError ? 'ETIMEDOUT' : 'ECONNABORTED';
}

/** Maps codes of undici to the codes of Node for the same errors. */
const CODES: Readonly<Record<string, string>> = {
  UND_ERR_SOCKET: 'ECONNRESET',
  UND_ERR_CONNECT_TIMEOUT: 'ETIMEDOUT',
};

function codeOf(error: HoldfastError, config: AxiosConfig): string {
  if (error instanceof TimeoutError) return timeoutCode(config);
  const { code } = (error.cause ?? {}) as NodeJS.ErrnoException;
  return error instanceof ServiceConnectionError && code !== undefined ? (CODES[code] ?? code) : error.code;
}
