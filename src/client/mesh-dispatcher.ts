import type { Agent, Dispatcher } from 'undici';
import { ClosedError, InvalidRequestError } from '../errors.ts';
import * as undici from '../internal/undici.ts';
import { hasMethods, validateOptions } from '../internal/validate.ts';
import type { EngineHandle } from './call-engine.ts';
import { InFlightCalls } from './in-flight-calls.ts';
import { type LegacyDispatchHandler, toNewerHandler } from './legacy-handler.ts';
import { MESH_CHECKS, type MeshOptions, MeshTargets, RENAMED_MESH_OPTIONS } from './mesh-target.ts';
import { MockPools } from './mock-pools.ts';
import { relay } from './relay.ts';
import { contentLengthOf, type RelayRequest } from './relay-request.ts';

export interface MeshDispatcherOptions extends MeshOptions {
  /**
   * Takes the requests to hosts that are no service of the mesh. Default: an Agent of undici's,
   * created for the first such request.
   */
  passthrough?: Dispatcher | undefined;
}

type Handler = Dispatcher.DispatchHandler | LegacyDispatchHandler;
/** A callback of `close()` and `destroy()`: undici gives it an error and data, as Node does. */
type Callback = (error?: null, data?: null) => void;

/** The options of a request: those of undici, and those of a call. */
export interface MeshDispatchOptions
  extends Dispatcher.DispatchOptions,
    Pick<RelayRequest, 'timeout' | 'retries' | 'idempotencyKey' | 'hashKey' | 'select'> {}

/**
 * Dispatches requests to services as a ServiceClient makes calls. It can be given wherever a
 * Dispatcher of undici's is taken, in any version of undici, the built-in fetch of Node included.
 */
export class MeshDispatcher extends undici.Dispatcher {
  readonly #client: EngineHandle;
  readonly #targets: MeshTargets;
  readonly #calls = new InFlightCalls();
  readonly #passthrough: Dispatcher | undefined;
  readonly #mocks: MockPools;
  #ownPassthrough: Agent | undefined = undefined;
  #closing: Promise<void> | undefined = undefined;
  #destroying: Promise<void> | undefined = undefined;

  /** @internal */
  constructor(client: EngineHandle, options: MeshDispatcherOptions = {}) {
    super();
    const owner = 'createDispatcher()';
    const table = { ...MESH_CHECKS, passthrough: hasMethods('dispatch') };
    validateOptions(owner, options, table, RENAMED_MESH_OPTIONS);
    this.#client = client;
    this.#targets = new MeshTargets(owner, { route: options.route, strict: options.strict });
    this.#passthrough = options.passthrough;
    this.#mocks = new MockPools(this, (request, handler) => {
      return this.#send(request, toNewerHandler(handler));
    });
  }

  get closed(): boolean {
    return this.#closing !== undefined;
  }

  get destroyed(): boolean {
    return this.#destroying !== undefined;
  }

  /**
   * Dispatches a request. The handler gets each error of it.
   *
   * @throws InvalidRequestError if the handler is not one of undici's
   */
  override dispatch(options: MeshDispatchOptions, handler: Handler): boolean {
    const newer = toNewerHandler(handler);
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
    const { origin, path } = options;
    const key = typeof origin === 'string' ? origin : `${origin?.protocol}//${origin?.host}`;
    const { service, nearMiss } = this.#targets.targetOf(key, () => parseUrl(origin, path));
    if (service !== undefined) this.#relay(service, options, handler);
    else {
      if (nearMiss !== undefined) this.#client.engine.notePassthrough(nearMiss);
      this.#passthroughOrOwn().dispatch(withOneLength(options), handler);
    }
    // False would make undici wait for a 'drain', which this dispatcher never emits.
    return true;
  }

  #relay(service: string, options: MeshDispatchOptions, handler: Dispatcher.DispatchHandler): void {
    if (options.upgrade)
      throw new InvalidRequestError('a request to a service cannot upgrade to another protocol');
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

  #passthroughOrOwn(): Dispatcher {
    this.#ownPassthrough ??= this.#passthrough === undefined ? new undici.Agent() : undefined;
    return this.#passthrough ?? this.#ownPassthrough!;
  }

  /**
   * `webSocketOptions` and `eventSourceOptions` are read by undici's WebSocket and EventSource,
   * whose requests never go to a service.
   */
  get webSocketOptions(): unknown {
    return (this.#passthroughOrOwn() as { webSocketOptions?: unknown }).webSocketOptions;
  }

  get eventSourceOptions(): unknown {
    return (this.#passthroughOrOwn() as { eventSourceOptions?: unknown }).eventSourceOptions;
  }

  /** Rejects further requests, and resolves when all requests under way have ended. */
  override close(): Promise<void>;
  override close(callback: Callback): void;
  override close(callback?: Callback): Promise<void> | undefined {
    this.#closing ??= this.#close();
    return notify(this.#closing, callback);
  }

  /** Rejects further requests, and ends all requests under way with the error. */
  override destroy(error?: Error | null): Promise<void>;
  override destroy(callback: Callback): void;
  override destroy(error: Error | null, callback: Callback): void;
  override destroy(error?: Error | null | Callback, callback?: Callback): Promise<void> | undefined {
    const reason = error instanceof Error ? error : new ClosedError('the dispatcher');
    this.#closing ??= this.#close();
    this.#destroying ??= this.#destroy(reason);
    return notify(this.#destroying, typeof error === 'function' ? error : callback);
  }

  async #close(): Promise<void> {
    await this.#calls.waitUntilIdle();
    if (this.#ownPassthrough?.destroyed === false) await this.#ownPassthrough.close();
    await this.#client.close();
  }

  async #destroy(reason: Error): Promise<void> {
    this.#calls.abort(reason);
    await this.#ownPassthrough?.destroy(reason);
    await this.#closing;
  }
}

/** Gives the promise, or instead calls the callback when it has resolved. */
function notify(done: Promise<void>, callback: Callback | undefined): Promise<void> | undefined {
  if (callback === undefined) return done;
  void done.then(() => callback(null, null));
  return undefined;
}

/**
 * Writes a Content-Length once. Where its caller has set one, the built-in fetch of some versions
 * of Node gives it twice over, `3, 3`, which newer releases of undici reject (nodejs/undici#5500).
 */
function withOneLength<O extends Dispatcher.DispatchOptions>(options: O): O {
  const headers = options.headers as Record<string, unknown> | null | undefined;
  const name = Object.keys(headers ?? {}).find((key) => key.toLowerCase() === 'content-length');
  const value = name && headers![name];
  if (typeof value !== 'string' || !value.includes(',')) return options;
  return { ...options, headers: { ...headers, [name as string]: contentLengthOf(value) } };
}

/**
 * Parses the URL of a request. It does so without `new URL(path, origin)`, since a path such as
 * `//elsewhere/` must not change the host.
 */
function parseUrl(origin: string | URL | undefined, path: string): URL {
  try {
    const { protocol, host } = new URL(origin as string);
    return new URL(`${protocol}//${host}${path.startsWith('/') ? path : '/'}`);
  } catch (cause) {
    throw new InvalidRequestError(`not an origin: ${String(origin)}`, { cause });
  }
}
