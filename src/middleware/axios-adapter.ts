import { Readable } from 'node:stream';
import type { ReadableStream } from 'node:stream/web';
import { createFetch, type MeshFetchOptions } from '../client/create-fetch.ts';
import type { ServiceClient, ServiceClientOptions } from '../client/service-client.ts';
import { HoldfastError, ServiceConnectionError, TimeoutError } from '../errors.ts';

/** What is looked at of the configuration of a request. */
interface AxiosConfig {
  responseType?: string;
  onUploadProgress?: unknown;
  transitional?: { clarifyTimeoutError?: boolean };
}

interface AxiosResponse {
  data: unknown;
}

type Adapter = (config: object) => Promise<AxiosResponse>;

/** The `adapter` of an axios instance. */
export interface AxiosMeshAdapter {
  // biome-ignore lint/suspicious/noExplicitAny: axios, whose types these are, may not be installed
  (config: object): Promise<any>;
  /** Waits for the calls under way, and closes the client if it was made for this. */
  close(): Promise<void>;
}

/**
 * An adapter for axios, from 1.12 on, that sends requests for services through the mesh. Interceptors, transforms, the
 * errors, cancellation, timeouts and progress stay those of axios.
 *
 * Where there is no answer, the `code` of the error is that of the connection (`ECONNREFUSED`), of axios for a timeout
 * (`ECONNABORTED`), or that of the HoldfastError (`ERR_CIRCUIT_OPEN`), which is its `cause`. What a call can be given
 * besides goes into `fetchOptions`: `{ idempotencyKey, retries, hashKey, select }`.
 *
 * @example
 * const users = axios.create({ baseURL: 'http://user-service', adapter: axiosAdapter(client) });
 */
export function axiosAdapter(
  clientOrOptions: ServiceClient | ServiceClientOptions,
  options?: MeshFetchOptions,
): AxiosMeshAdapter {
  const fetch = createFetch(clientOrOptions, options);
  let adapters: Promise<{ plain: Adapter; tracking: Adapter }> | undefined;
  const adapter = async (config: AxiosConfig) => {
    adapters ??= adaptersOf(fetch);
    const { plain, tracking } = await adapters;
    const send = config.onUploadProgress ? tracking : plain;
    try {
      const response = await send(config);
      response.data = asInNode(response.data, config);
      return response;
    } catch (error) {
      throw withCode(error, config);
    }
  };
  return Object.assign(adapter, { close: fetch.close });
}

/** axios's own adapter for a fetch: with Requests, which it needs to track an upload, and without, which is faster. */
async function adaptersOf(fetch: unknown): Promise<{ plain: Adapter; tracking: Adapter }> {
  const { default: axios } = await import('axios');
  const adapterWith = (env: object) => axios.getAdapter('fetch', { env } as never) as Adapter;
  return { plain: adapterWith({ fetch, Request: null }), tracking: adapterWith({ fetch }) };
}

/** What axios gives for the type with its adapter for Node. */
function asInNode(data: unknown, { responseType }: AxiosConfig): unknown {
  if (responseType === 'stream') return Readable.fromWeb(data as ReadableStream);
  if (responseType === 'arraybuffer') return Buffer.from(data as ArrayBuffer);
  return data;
}

function withCode(error: unknown, config: AxiosConfig): unknown {
  if ((error as { isAxiosError?: boolean }).isAxiosError !== true) return error;
  const cause = causeOf(error);
  if (cause === undefined) {
    if ((error as NodeJS.ErrnoException).code !== 'ETIMEDOUT') return error;
    return Object.assign(error as object, { code: timeoutCode(config) });
  }
  return Object.assign(error as object, { code: codeOf(cause, config), message: cause.message, cause });
}

function causeOf(error: unknown): HoldfastError | undefined {
  for (let cause = (error as Error).cause; cause instanceof Error; cause = cause.cause) {
    if (cause instanceof HoldfastError) return cause;
  }
  return undefined;
}

/** As axios's adapter for Node has it. */
function timeoutCode({ transitional }: AxiosConfig): string {
  return transitional?.clarifyTimeoutError ? 'ETIMEDOUT' : 'ECONNABORTED';
}

function codeOf(error: HoldfastError, config: AxiosConfig): string {
  if (error instanceof TimeoutError) return timeoutCode(config);
  const { code } = (error.cause ?? {}) as NodeJS.ErrnoException;
  return error instanceof ServiceConnectionError && code !== undefined ? code : error.code;
}
