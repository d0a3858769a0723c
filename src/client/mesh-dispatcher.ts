import type { Agent, Dispatcher } from 'undici';
import { ClosedError, InvalidRequestError } from '../errors.ts';
import { growingLru } from '../internal/growing-lru.ts';
import * as undici from '../internal/undici.ts';
import { hasMethods, validateOptions } from '../internal/validate.ts';
import type { EngineHandle } from './call-engine.ts';
import { type LegacyDispatchHandler, newerHandler } from './legacy-handler.ts';
import { MESH_CHECKS, type MeshOptions, MeshTargets, type NearMiss } from './mesh-target.ts';
import { MockPools } from './mock-pools.ts';
import { relay } from './relay.ts';
import { lengthIn, type RelayRequest } from './relay-request.ts';
import { RelayedCalls } from './relayed-calls.ts';

export interface MeshDispatcherOptions extends MeshOptions {
  /** Takes the requests that are not the mesh's. Default: an Agent of undici's, made when there is such a request. */
  fallback?: Dispatcher;
}

type Handler = Dispatcher.DispatchHandler | LegacyDispatchHandler;
/** undici gives it an error and data, as Node does. */
type Callback = (error?: null, data?: null) => void;

/** What a request can be given besides what undici knows. */
export interface MeshDispatchOptions
  extends Dispatcher.DispatchOptions,
    Pick<RelayRequest, 'timeout' | 'retries' | 'idempotencyKey' | 'hashKey' | 'select'> {}

/** What an origin means. */
interface Target {
  readonly service: string | undefined;
  readonly nearMiss: NearMiss | undefined;
}

const MAX_ORIGINS = 1_000;

/**
 * A Dispatcher of undici's through which requests to services go the way of a ServiceClient's calls. It can be given
 * to whatever takes one, in any version of undici, the built-in fetch of Node included.
 */
export class MeshDispatcher extends undici.Dispatcher {
  readonly #client: EngineHandle;
  readonly #targets: MeshTargets;
  readonly #services = growingLru<string, Target>(MAX_ORIGINS);
  readonly #calls = new RelayedCalls();
  readonly #fallback: Dispatcher | undefined;
  readonly #mocks: MockPools;
  #ownFallback: Agent | undefined = undefined;
  #closing: Promise<void> | undefined = undefined;
  #destroying: Promise<void> | undefined = undefined;

  constructor(client: EngineHandle, options: MeshDispatcherOptions = {}) {
    super();
    const owner = 'createDispatcher()';
    validateOptions(owner, options, { ...MESH_CHECKS, fallback: hasMethods('dispatch') });
    this.#client = client;
    this.#targets = new MeshTargets(owner, { route: options.route, strict: options.strict });
    this.#fallback = options.fallback;
    this.#mocks = new MockPools(this, (request, handler) => {
      return this.#send(request, newerHandler(handler));
    });
  }

  get closed(): boolean {
    return this.#closing !== undefined;
  }

  get destroyed(): boolean {
    return this.#destroying !== undefined;
  }

  /** @throws InvalidRequestError if the handler is none; of any other error the handler is told. */
  override dispatch(options: MeshDispatchOptions, handler: Handler): boolean {
    const newer = newerHandler(handler);
    try {
      if (this.closed) throw new ClosedError('the dispatcher');
      if (typeof options !== 'object' || options === null) {
        throw new InvalidRequestError('the options of a request must be an object');
      }
      const mocked = this.#mocks.find(options.origin);
      if (mocked === undefined) return this.#send(options, newer);
      return mocked.dispatch(options, newer);
    } catch (error) {
      newer.onResponseError?.(null as never, error as Error);
      return false;
    }
  }

  #send(options: MeshDispatchOptions, handler: Dispatcher.DispatchHandler): boolean {
    const { service, nearMiss } = this.#targetOf(options);
    if (service !== undefined) this.#relay(service, options, handler);
    else {
      if (nearMiss !== undefined) this.#client.engine.notePassthrough(nearMiss);
      this.#fallbackOrOwn().dispatch(withOneLength(options), handler);
    }
    // It never asks to wait for a 'drain'.
    return true;
  }

  #relay(service: string, options: MeshDispatchOptions, handler: Dispatcher.DispatchHandler): void {
    if (options.upgrade) throw new InvalidRequestError('a service takes no upgrade to another protocol');
    const { method, path, query, headers, body, idempotent, headersTimeout, bodyTimeout } = options;
    const { expectContinue, reset, timeout, retries, idempotencyKey, hashKey, select } = options;
    const request = {
      service,
      method,
      path,
      query,
      headers,
      body,
      idempotent,
      headersTimeout,
      bodyTimeout,
      expectContinue,
      reset,
      timeout,
      retries,
      idempotencyKey,
      hashKey,
      select,
    } as RelayRequest;
    relay(this.#client.engine, request, handler, this.#calls);
  }

  #targetOf({ origin, path }: MeshDispatchOptions): Target {
    if (!this.#targets.byOrigin) {
      return { service: this.#targets.serviceOf(urlOf(origin, path)), nearMiss: undefined };
    }
    const key = typeof origin === 'string' ? origin : `${origin?.protocol}//${origin?.host}`;
    let known = this.#services.get(key);
    if (known === undefined) {
      const url = urlOf(origin, '/');
      const service = this.#targets.serviceOf(url);
      known = { service, nearMiss: service === undefined ? this.#targets.nearMissOf(url) : undefined };
      this.#services.set(key, known);
    }
    return known;
  }

  #fallbackOrOwn(): Dispatcher {
    this.#ownFallback ??= this.#fallback === undefined ? new undici.Agent() : undefined;
    return this.#fallback ?? this.#ownFallback!;
  }

  /** What undici's WebSocket and EventSource, which are never the mesh's, ask of their dispatcher. */
  get webSocketOptions(): unknown {
    return (this.#fallbackOrOwn() as { webSocketOptions?: unknown }).webSocketOptions;
  }

  get eventSourceOptions(): unknown {
    return (this.#fallbackOrOwn() as { eventSourceOptions?: unknown }).eventSourceOptions;
  }

  /** Takes no more requests, and resolves when those under way are done. */
  override close(): Promise<void>;
  override close(callback: Callback): void;
  override close(callback?: Callback): Promise<void> | undefined {
    this.#closing ??= this.#close();
    return answer(this.#closing, callback);
  }

  /** Takes no more requests, and ends those under way with the error. */
  override destroy(error?: Error | null): Promise<void>;
  override destroy(callback: Callback): void;
  override destroy(error: Error | null, callback: Callback): void;
  override destroy(error?: Error | null | Callback, callback?: Callback): Promise<void> | undefined {
    const reason = error instanceof Error ? error : new ClosedError('the dispatcher');
    this.#closing ??= this.#close();
    this.#destroying ??= this.#destroy(reason);
    return answer(this.#destroying, typeof error === 'function' ? error : callback);
  }

  async #close(): Promise<void> {
    await this.#calls.done();
    if (this.#ownFallback?.destroyed === false) await this.#ownFallback.close();
    await this.#client.close();
  }

  async #destroy(reason: Error): Promise<void> {
    this.#calls.abort(reason);
    await this.#ownFallback?.destroy(reason);
    await this.#closing;
  }
}

function answer(done: Promise<void>, callback: Callback | undefined): Promise<void> | undefined {
  if (callback === undefined) return done;
  void done.then(() => callback(null, null));
  return undefined;
}

/**
 * The built-in fetch of some versions of Node gives a Content-Length that its caller has set twice over, `3, 3`, which
 * newer releases of undici refuse (nodejs/undici#5500).
 */
function withOneLength<O extends Dispatcher.DispatchOptions>(options: O): O {
  const headers = options.headers as Record<string, unknown> | null | undefined;
  const name = Object.keys(headers ?? {}).find((key) => key.toLowerCase() === 'content-length');
  const value = name && headers![name];
  if (typeof value !== 'string' || !value.includes(',')) return options;
  return { ...options, headers: { ...headers, [name as string]: lengthIn(value) } };
}

/** Not `new URL(path, origin)`: a path such as `//elsewhere/` must not change the host. */
function urlOf(origin: string | URL | undefined, path: string): URL {
  try {
    const { protocol, host } = new URL(origin as string);
    return new URL(`${protocol}//${host}${path.startsWith('/') ? path : '/'}`);
  } catch (cause) {
    throw new InvalidRequestError(`not an origin: ${String(origin)}`, { cause });
  }
}
