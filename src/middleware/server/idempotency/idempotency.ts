import { randomUUID } from 'node:crypto';
import { headerNames } from '../../../client/credentials.ts';
import { isKeyedMethod } from '../../../client/methods.ts';
import { TimeoutError } from '../../../errors.ts';
import { isThenable } from '../../../internal/decision.ts';
import { jitter } from '../../../internal/jitter.ts';
import {
  boolean,
  either,
  hasMethods,
  integer,
  isFunction,
  MAX_DELAY,
  number,
  oneOf,
  type RenamedOptions,
  validateOptions,
} from '../../../internal/validate.ts';
import { type Abortable, OnAbort } from '../../../policies/abort.ts';
import type { GuardedRequest, IncomingRequest } from '../guard/incoming-request.ts';
import type { LocalResponse } from '../guard/local-response.ts';
import {
  CLIENT_GONE,
  KEY_IN_PROGRESS,
  KEY_INVALID,
  KEY_MISSING,
  KEY_REUSED,
  KEYS_UNAVAILABLE,
  PAST_DEADLINE,
  type Rejection,
} from '../guard/rejection.ts';
import { BodyHash } from './body-hash.ts';
import { credentialsOf, parseIdempotencyKey, SCOPE_HEADERS, storageKey } from './idempotency-key.ts';
import type { IdempotencyStore, KeyState } from './idempotency-store.ts';
import { InMemoryIdempotencyStore } from './in-memory-idempotency-store.ts';
import { KeyLock } from './key-lock.ts';
import { decodeResponse, type StoredResponse } from './stored-response.ts';

export interface IdempotencyOptions {
  /**
   * Stores the responses. Default: an InMemoryIdempotencyStore, which is right for a service that
   * is one process.
   */
  store?: IdempotencyStore;
  /**
   * Whether a POST or PATCH must have a key: without one it is rejected with 400. A promise is
   * awaited. Default false.
   */
  required?: boolean | ((request: IncomingRequest) => boolean | PromiseLike<boolean>);
  /** Milliseconds for which a response is stored and replayed. Default 24 hours. */
  ttl?: number;
  /**
   * Milliseconds for which a key stays locked when its process died. While a request is handled its
   * lock is renewed; when its client has disconnected, for ten times as long at most. When the
   * server itself aborts the response, the key is unlocked at once. Default 30,000.
   */
  lockTimeout?: number;
  /**
   * Whether a duplicate waits for the response while the first request is handled, or is rejected
   * with 409. Default 'wait'.
   */
  duplicates?: 'wait' | 'reject';
  /**
   * Milliseconds that a duplicate waits, unless its deadline is sooner; then it is rejected with
   * 409. Default 10,000.
   */
  waitTimeout?: number;
  /**
   * The largest body that is stored, in bytes. A larger response is sent and not stored: the
   * request is handled again if it comes again. Default 1 MiB.
   */
  maxResponseSize?: number;
  /**
   * Gives the scope of a key: the same for a caller each time, and for no other. A promise is
   * awaited. Default: the headers `Authorization`, `Proxy-Authorization`, `Cookie`, `X-Api-Key`,
   * `X-Auth-Token`, `X-Goog-Api-Key`, `X-Tenant-Id` and `X-Service-Name` together, and the
   * `credentialHeaders`. If those change between attempts, as tokens that are renewed do, give the
   * id of the user or of the tenant, from a source that cannot be forged.
   */
  scope?: (request: IncomingRequest) => string | PromiseLike<string>;
  /** Names of further headers that tell callers or tenants apart, for the default `scope`. */
  credentialHeaders?: readonly string[];
  /**
   * Whether requests that have a key are rejected with 503 while the store is unavailable, or
   * handled as if they had none. Default 'reject': nothing that must not happen twice does.
   */
  whenUnavailable?: 'reject' | 'handle';
}

export interface IdempotencyCallbacks {
  /** Gives the seconds of `Retry-After`, by chance. */
  retryAfter(): number;
  onStoreError(error: unknown): void;
  /** Is called when another process has locked the key of a request that is still handled. */
  onLockLost(request: IncomingRequest): void;
}

/**
 * The result of beginning a request: it has locked its key (`begun`), has a stored response
 * (`done`), is rejected, or is to be handled without a lock since the store is unavailable.
 */
export type BeginResult =
  | { readonly state: 'begun'; readonly keyLock: KeyLock }
  | { readonly state: 'done'; readonly response: LocalResponse }
  | { readonly state: 'rejected'; readonly rejection: Rejection }
  | { readonly state: 'unavailable' };

type Rejected = Extract<BeginResult, { state: 'rejected' }>;

/** The key of a request, if it has one, or the rejection of a missing or malformed key. */
type ReadKey = string | Rejection | undefined;

/** One request's claim to a key. */
interface KeyClaim {
  /** The scope of the caller. */
  readonly scope: string;
  /** The name of the key in the store. */
  readonly name: string;
  readonly holder: string;
}

/** The number of duplicates that may wait at the same time in one scope: more are rejected. */
const MAX_WAITING_PER_SCOPE = 1_000;
/** Milliseconds between two polls of a locked key, growing from the first to the longest. */
const FIRST_WAIT = 20;
const LONGEST_WAIT = 500;

/** The new names of options and of their values, by their former names. */
const RENAMED: RenamedOptions = {
  // The former names of two options.
  ...{ lease: 'lockTimeout', maxAnswerSize: 'maxResponseSize' },
  // The former names of two values.
  ...{ duplicates: { refuse: 'reject' }, whenUnavailable: { refuse: 'reject' } },
};

/**
 * Handles a request with an idempotency key once, and replays its response to all that come again.
 *
 * Source: the IETF draft 'The Idempotency-Key HTTP Header Field'
 * (draft-ietf-httpapi-idempotency-key-header-07).
 */
export class Idempotency {
  readonly #store: IdempotencyStore;
  readonly #options: IdempotencyOptions;
  readonly #callbacks: IdempotencyCallbacks;
  readonly #limits: { lockTimeout: number; ttl: number; maxResponseSize: number };
  readonly #scope: NonNullable<IdempotencyOptions['scope']>;
  /**
   * The keys of requests that this guard has let through, until it is known how they ended. The
   * store may unlock such a key before, if the event loop was blocked for longer than the lock's
   * timeout.
   */
  readonly #lockedNames = new Set<string>();
  /** The writes on their way to the store. */
  readonly #pending = new Set<Promise<void>>();
  /** The number of duplicates that wait, by scope. */
  readonly #waiting = new Map<string, number>();

  constructor(options: IdempotencyOptions, callbacks: IdempotencyCallbacks) {
    const milliseconds = number(1, MAX_DELAY);
    validateOptions(
      'idempotency',
      options,
      {
        store: hasMethods('begin', 'complete', 'release'),
        required: either('true, false or a function', boolean, isFunction),
        ttl: number(1),
        lockTimeout: number(100, MAX_DELAY),
        duplicates: oneOf('wait', 'reject'),
        waitTimeout: milliseconds,
        maxResponseSize: integer(0),
        scope: isFunction,
        credentialHeaders: headerNames,
        whenUnavailable: oneOf('reject', 'handle'),
      },
      RENAMED,
    );
    this.#options = options;
    this.#callbacks = callbacks;
    this.#store = options.store ?? new InMemoryIdempotencyStore();
    const { lockTimeout = 30_000, ttl = 24 * 3_600_000, maxResponseSize = 1024 * 1024 } = options;
    this.#limits = { lockTimeout, ttl, maxResponseSize };
    if (options.scope !== undefined && options.credentialHeaders !== undefined) {
      throw new TypeError("idempotency takes the option 'scope' or 'credentialHeaders', not both");
    }
    const { credentialHeaders = [] } = options;
    const names = [...SCOPE_HEADERS, ...credentialHeaders.map((name) => name.toLowerCase())];
    this.#scope = options.scope ?? ((request) => credentialsOf(request, names));
  }

  /**
   * Reads the key of a request; gives undefined if the request needs none, a rejection if the key
   * is missing or not well formed. Gives a promise only if `required` does.
   */
  readKey(request: IncomingRequest): ReadKey | Promise<ReadKey> {
    if (!isKeyedMethod(request.method)) return undefined;
    const field = request.headers['idempotency-key'];
    if (field !== undefined) return parseIdempotencyKey(field) ?? KEY_INVALID;
    const { required = false } = this.#options;
    const missing = typeof required === 'function' ? required(request) : required;
    return isThenable(missing) ? Promise.resolve(missing).then(checkMissing) : checkMissing(missing);
  }

  /**
   * Locks the key, or finds the stored response: at once, or after waiting for the request that has
   * the lock.
   */
  async begin(key: string, guarded: GuardedRequest, deadline: number): Promise<BeginResult> {
    const given = this.#scope(guarded.request);
    const scope = isThenable(given) ? await given : given;
    if (typeof scope !== 'string') {
      throw new TypeError(`idempotency option 'scope' must give a string; got ${typeof scope}`);
    }
    const claim = { scope, name: storageKey(scope, key), holder: randomUUID() };
    try {
      return await this.#begin(claim, guarded, deadline);
    } catch (error) {
      this.#callbacks.onStoreError(error);
      // The store may have locked the key without saying so.
      this.#track(this.#unlock(claim));
      if (this.#options.whenUnavailable === 'handle') return { state: 'unavailable' };
      return this.#rejectForNow(KEYS_UNAVAILABLE);
    }
  }

  /** Waits for the writes on their way to the store. */
  async close(): Promise<void> {
    while (this.#pending.size > 0) await Promise.all(this.#pending);
  }

  async #begin(claim: KeyClaim, guarded: GuardedRequest, deadline: number): Promise<BeginResult> {
    const { request, target, disconnected, body } = guarded;
    const found = await this.#waitForKey(claim, disconnected, deadline);
    if (found.state === 'rejected') return found;
    if (found.state === 'done') return this.#replay(decodeResponse(found.response), guarded);
    const hash = new BodyHash(request.method, target);
    const { name, holder } = claim;
    const keyLock = new KeyLock(this.#store, { name, holder, ...this.#limits }, hash, {
      onStoreError: (error) => this.#callbacks.onStoreError(error),
      track: (work) => this.#track(work),
      onLost: () => this.#callbacks.onLockLost(request),
      onEnd: () => this.#lockedNames.delete(name),
    });
    this.#lockedNames.add(name);
    try {
      await body.observe(hash);
    } catch (error) {
      keyLock.release();
      throw error;
    }
    if (!disconnected.aborted) return { state: 'begun', keyLock };
    keyLock.release();
    return reject(CLIENT_GONE);
  }

  /** Waits until no other request has locked the key; rejects a request that waits for too long. */
  async #waitForKey(
    claim: KeyClaim,
    disconnected: Abortable,
    deadline: number,
  ): Promise<Exclude<KeyState, { state: 'locked' }> | Rejected> {
    const { duplicates = 'wait', waitTimeout = 10_000 } = this.#options;
    const until = Math.min(deadline, performance.now() + waitTimeout);
    for (let wait = FIRST_WAIT; ; wait = Math.min(LONGEST_WAIT, wait * 1.5)) {
      const found = await this.#lock(claim);
      if (found.state !== 'locked' && found.state !== 'late') return found;
      const now = performance.now();
      const end = reasonToEnd(disconnected, deadline, now);
      if (found.state === 'late') {
        if (end === undefined && now < until) continue;
        if (end === undefined) throw createStoreTimeout(this.#limits.lockTimeout);
        this.#track(this.#unlock(claim));
      }
      if (end !== undefined) return reject(end);
      if (duplicates !== 'wait' || now >= until || !this.#beginWait(claim.scope)) {
        return this.#rejectForNow(KEY_IN_PROGRESS);
      }
      await pause(Math.min(jitter(wait, 0.5, 1), until - performance.now()), disconnected);
      this.#endWait(claim.scope);
    }
  }

  /** Takes in that a request waits, unless too many of its scope do. */
  #beginWait(scope: string): boolean {
    const others = this.#waiting.get(scope) ?? 0;
    if (others >= MAX_WAITING_PER_SCOPE) return false;
    this.#waiting.set(scope, others + 1);
    return true;
  }

  #endWait(scope: string): void {
    const others = this.#waiting.get(scope)! - 1;
    if (others === 0) this.#waiting.delete(scope);
    else this.#waiting.set(scope, others);
  }

  /**
   * Locks the key, unless another request has. A lock that has expired before the store's reply
   * came does not count: it is late.
   */
  async #lock({ name, holder }: KeyClaim): Promise<KeyState | { state: 'late' }> {
    const { lockTimeout } = this.#limits;
    if (this.#lockedNames.has(name)) return { state: 'locked' };
    const askedAt = performance.now();
    const found = await this.#store.begin(name, holder, lockTimeout);
    if (found.state !== 'begun') return checkKeyState(found);
    return performance.now() - askedAt < lockTimeout ? found : { state: 'late' };
  }

  /** Gives the stored response, unless this is another request than the one that it was for. */
  async #replay({ response, fingerprint }: StoredResponse, guarded: GuardedRequest): Promise<BeginResult> {
    const hash = new BodyHash(guarded.request.method, guarded.target, fingerprint);
    await guarded.body.read(hash);
    return hash.matches() ? { state: 'done', response } : reject(KEY_REUSED);
  }

  #rejectForNow(rejection: Rejection): Rejected {
    return reject({ ...rejection, retryAfter: this.#callbacks.retryAfter() });
  }

  /** Rejects, rather than throws, even if the store throws at once. */
  async #unlock({ name, holder }: KeyClaim): Promise<void> {
    await this.#store.release(name, holder);
  }

  #track(work: Promise<void>): void {
    const tracked = work
      .catch((error) => this.#callbacks.onStoreError(error))
      .then(() => void this.#pending.delete(tracked));
    this.#pending.add(tracked);
  }
}

function reject(rejection: Rejection): Rejected {
  return { state: 'rejected', rejection };
}

function createStoreTimeout(lockTimeout: number): TimeoutError {
  const message = `the store of idempotency keys took longer than a lock lasts: ${lockTimeout} ms`;
  return new TimeoutError(message, lockTimeout);
}

/** Why a request must not wait any longer, if it must not. */
function reasonToEnd(disconnected: Abortable, deadline: number, now: number): Rejection | undefined {
  if (disconnected.aborted) return CLIENT_GONE;
  return now >= deadline ? PAST_DEADLINE : undefined;
}

function checkMissing(required: boolean): Rejection | undefined {
  return required ? KEY_MISSING : undefined;
}

/** Rejects any other state: it must not count as a lock, lest the request be handled twice. */
function checkKeyState(found: KeyState): KeyState {
  if (found.state === 'locked' || found.state === 'done') return found;
  const { state } = found as { state: unknown };
  throw new TypeError(`a store of idempotency keys must give 'begun', 'locked' or 'done'; got '${state}'`);
}

/** Waits for `wait` milliseconds, or until the client disconnects. */
function pause(wait: number, disconnected: Abortable): Promise<void> {
  return new Promise((resolve) => {
    const stop = () => {
      clearTimeout(timer);
      disconnected.unlisten(onAbort);
      resolve();
    };
    const onAbort = new OnAbort(stop);
    const timer = setTimeout(stop, wait).unref();
    disconnected.listen(onAbort);
  });
}
