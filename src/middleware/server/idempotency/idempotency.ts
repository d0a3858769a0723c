import { randomUUID } from 'node:crypto';
import { isKeyedMethod } from '../../../client/methods.ts';
import { TimeoutError } from '../../../errors.ts';
import { isThenable } from '../../../internal/decision.ts';
import { jitter } from '../../../internal/jitter.ts';
import type { Compensated } from '../../../internal/request-context.ts';
import { shown } from '../../../internal/shown.ts';
import type { Abortable } from '../../../policies/abort.ts';
import { DecisionWait } from '../guard/decision-wait.ts';
import type { GuardedRequest, IncomingRequest } from '../guard/incoming-request.ts';
import type { LocalResponse } from '../guard/local-response.ts';
import {
  CLIENT_GONE,
  COMPENSATED_IN_PROGRESS,
  COMPENSATES_KEY_UNSUPPORTED,
  KEY_IN_PROGRESS,
  KEY_MISSING,
  KEY_REUSED,
  KEY_REVOKED,
  KEYS_UNAVAILABLE,
  PAST_DEADLINE,
  type Rejection,
} from '../guard/rejection.ts';
import { BodyHash, type RequestBody } from './body-hash.ts';
import { credentialsOf, SCOPE_HEADERS, storageKey } from './idempotency-key.ts';
import { checkIdempotencyOptions, type IdempotencyOptions } from './idempotency-options.ts';
import type { CompensatedState, IdempotencyStore, KeyState } from './idempotency-store.ts';
import { InMemoryIdempotencyStore } from './in-memory-idempotency-store.ts';
import { KeyLock } from './key-lock.ts';
import {
  type ReadKey,
  type ReadKeys,
  type RequestKeys,
  readCompensatesKey,
  readOwnKey,
  toRequestKeys,
} from './request-keys.ts';
import { decodeResponse, type StoredResponse, toReplay } from './stored-response.ts';
import { WaitingRequests } from './waiting-requests.ts';

export interface IdempotencyCallbacks {
  /** Gives the seconds of `Retry-After`, by chance. */
  retryAfter(): number;
  onStoreError(error: unknown): void;
  /** Is called when another process has locked the key of a request that is still handled. */
  onLockLost(request: IncomingRequest): void;
}

/**
 * The result of beginning a request: it is to be handled (`begun`), has a stored response (`done`),
 * is rejected, or is to be handled without a lock since the store is unavailable.
 */
export type BeginResult =
  | {
      readonly state: 'begun';
      /** The lock on the request's own key, if it has one. */
      readonly keyLock: KeyLock | undefined;
      /** Tells of the request that it compensates, if it does. */
      readonly compensates: Compensated | undefined;
    }
  | { readonly state: 'done'; readonly response: LocalResponse }
  | { readonly state: 'rejected'; readonly rejection: Rejection }
  | { readonly state: 'unavailable' };

type Rejected = Extract<BeginResult, { state: 'rejected' }>;

/** One request's claim to a key. */
interface KeyClaim {
  /** The name of the key in the store. */
  readonly name: string;
  readonly holder: string;
}

/** The keys of a request in the store. */
interface StoreKeys {
  readonly own: KeyClaim | undefined;
  /** The name of the key that the request compensates. */
  readonly compensates: string | undefined;
}

/** A request that waits until no other request has locked a key. */
interface Waiter {
  /** The scope of the caller. */
  readonly scope: string;
  readonly disconnected: Abortable;
  readonly deadline: number;
}

type Locked = Extract<KeyState, { state: 'locked' }>;

/** A lock had expired when the store's reply came. */
type Late = { readonly state: 'late' };

/** Milliseconds between two polls of a locked key, growing from the first to the longest. */
const FIRST_WAIT = 20;
const LONGEST_WAIT = 500;

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
  readonly #scopeWait = new DecisionWait("idempotency option 'scope'");
  readonly #requiredWait = new DecisionWait("idempotency option 'required'");
  /**
   * The keys of requests that this guard has let through, until it is known how they ended. The
   * store may unlock such a key before, if the event loop was blocked for longer than the lock's
   * timeout.
   */
  readonly #lockedNames = new Set<string>();
  /** The writes on their way to the store. */
  readonly #pending = new Set<Promise<void>>();
  readonly #waiting = new WaitingRequests();

  constructor(options: IdempotencyOptions, callbacks: IdempotencyCallbacks) {
    checkIdempotencyOptions(options);
    this.#options = options;
    this.#callbacks = callbacks;
    this.#store = options.store ?? new InMemoryIdempotencyStore();
    const { lockTimeout = 30_000, ttl = 24 * 3_600_000, maxResponseSize = 1024 * 1024 } = options;
    this.#limits = { lockTimeout, ttl, maxResponseSize };
    const { credentialHeaders = [] } = options;
    const names = [...SCOPE_HEADERS, ...credentialHeaders.map((name) => name.toLowerCase())];
    this.#scope = options.scope ?? ((request) => credentialsOf(request, names));
  }

  /**
   * Reads the keys of a request; gives undefined if it has and needs none, a rejection if one is
   * missing or not well formed. Gives a promise only if `required` does.
   */
  readKeys(guarded: GuardedRequest, deadline: number): ReadKeys | Promise<ReadKeys> {
    const { request } = guarded;
    const compensates = readCompensatesKey(request);
    if (compensates !== undefined && this.#store.compensate === undefined) return COMPENSATES_KEY_UNSUPPORTED;
    const own = readOwnKey(request) ?? this.#checkMissing(guarded, deadline);
    if (!(own instanceof Promise)) return toRequestKeys(own, compensates);
    return own.then((late) => toRequestKeys(late, compensates));
  }

  #checkMissing(guarded: GuardedRequest, deadline: number): ReadKey | Promise<ReadKey> {
    const { request } = guarded;
    const { required = false } = this.#options;
    if (required === false || !isKeyedMethod(request.method)) return undefined;
    const missing = typeof required === 'function' ? required(request) : required;
    if (!isThenable(missing)) return checkMissing(missing);
    return this.#requiredWait.decide(missing, guarded, deadline).then(checkMissing);
  }

  /**
   * Locks the request's own key, or finds the stored response: at once, or after waiting for the
   * request that has the lock. Then it revokes the key that the request compensates, or finds that
   * one's response. In this order, a repeated compensation is replayed, and one whose process dies
   * between the two is begun again.
   */
  async begin(
    { own, compensates }: RequestKeys,
    guarded: GuardedRequest,
    deadline: number,
  ): Promise<BeginResult> {
    const scope = await this.#readScope(guarded, deadline);
    const keys = {
      own: own === undefined ? undefined : { name: storageKey(scope, own), holder: randomUUID() },
      compensates: compensates === undefined ? undefined : storageKey(scope, compensates),
    };
    try {
      return await this.#begin(keys, guarded, { scope, disconnected: guarded.disconnected, deadline });
    } catch (error) {
      this.#callbacks.onStoreError(error);
      // The store may have locked the key without saying so.
      if (keys.own !== undefined) this.#track(this.#unlock(keys.own));
      // Unknown to the store, the compensated request could still be handled after this one.
      const handle = this.#options.whenUnavailable === 'handle' && compensates === undefined;
      return handle ? { state: 'unavailable' } : this.#rejectForNow(KEYS_UNAVAILABLE);
    }
  }

  /** Waits for the writes on their way to the store. */
  async close(): Promise<void> {
    while (this.#pending.size > 0) await Promise.all(this.#pending);
  }

  async #readScope(guarded: GuardedRequest, deadline: number): Promise<string> {
    const given = this.#scope(guarded.request);
    const scope = isThenable(given) ? await this.#scopeWait.decide(given, guarded, deadline) : given;
    if (typeof scope === 'string') return scope;
    throw new TypeError(`idempotency option 'scope' must give a string; got ${typeof scope}`);
  }

  async #begin(keys: StoreKeys, guarded: GuardedRequest, waiter: Waiter): Promise<BeginResult> {
    const { own } = keys;
    if (own === undefined) return this.#beginHandling(undefined, keys, waiter);
    const found = await this.#wait(() => this.#lock(own), waiter, KEY_IN_PROGRESS, own);
    if (found.state === 'rejected') return found;
    if (found.state === 'revoked') return reject(KEY_REVOKED);
    if (found.state === 'done') return this.#replay(decodeResponse(found.response), keys, guarded);
    const hash = new BodyHash(guarded.request.method, targetOf(guarded, keys));
    const { body } = guarded;
    const keyLock = this.#hold(own, hash, body, guarded.request);
    const lockedAt = performance.now();
    let begun: BeginResult | undefined;
    try {
      begun = await this.#beginHandling(keyLock, keys, waiter);
      if (begun.state === 'begun' && !(await this.#stillHolds(own, lockedAt))) {
        begun = this.#rejectForNow(KEY_IN_PROGRESS);
      }
      if (begun.state === 'begun') await body.observe(hash);
      if (waiter.disconnected.aborted) begun = reject(CLIENT_GONE);
      return begun;
    } catch (error) {
      begun = undefined;
      throw error;
    } finally {
      if (begun?.state !== 'begun') keyLock.release();
    }
  }

  /** Whether a request that may have waited for another one since has its own key yet. */
  async #stillHolds({ name, holder }: KeyClaim, lockedAt: number): Promise<boolean> {
    const { lockTimeout } = this.#limits;
    if (performance.now() - lockedAt < lockTimeout) return true;
    return (await this.#store.begin(name, holder, lockTimeout)).state === 'begun';
  }

  #hold({ name, holder }: KeyClaim, hash: BodyHash, body: RequestBody, request: IncomingRequest): KeyLock {
    this.#lockedNames.add(name);
    return new KeyLock(this.#store, { name, holder, ...this.#limits }, hash, {
      isCutOff: () => body.isCutOff(hash),
      onStoreError: (error) => this.#callbacks.onStoreError(error),
      track: (work) => this.#track(work),
      onLost: () => this.#callbacks.onLockLost(request),
      onEnd: () => this.#lockedNames.delete(name),
    });
  }

  /** Finds out about the request that this one compensates, if it does. */
  async #beginHandling(
    keyLock: KeyLock | undefined,
    { compensates: name }: StoreKeys,
    waiter: Waiter,
  ): Promise<BeginResult> {
    if (name === undefined) return { state: 'begun', keyLock, compensates: undefined };
    const found = await this.#wait(() => this.#compensate(name), waiter, COMPENSATED_IN_PROGRESS);
    if (found.state === 'rejected') return found;
    const compensates: Compensated =
      found.state === 'revoked'
        ? { seen: false }
        : { seen: true, response: decodeResponse(found.response).response };
    return { state: 'begun', keyLock, compensates };
  }

  /** A request that this process still handles counts as locked, even if its lock has expired. */
  async #compensate(name: string): Promise<CompensatedState> {
    if (this.#lockedNames.has(name)) return { state: 'locked' };
    return checkKeyState(await this.#store.compensate!(name, this.#limits.ttl));
  }

  /**
   * Waits until no other request has locked a key; rejects a request that waits for too long.
   *
   * @param ask asks the store for the key, for `claim` if it is to lock it
   */
  async #wait<T extends { readonly state: string }>(
    ask: () => Promise<T | Locked | Late>,
    waiter: Waiter,
    inProgress: Rejection,
    claim?: KeyClaim,
  ): Promise<Exclude<T, Locked | Late> | Rejected> {
    const { waitTimeout = 10_000 } = this.#options;
    const until = Math.min(waiter.deadline, performance.now() + waitTimeout);
    for (let wait = FIRST_WAIT; ; wait = Math.min(LONGEST_WAIT, wait * 1.5)) {
      const found = await ask();
      if (found.state !== 'locked' && found.state !== 'late') return found as Exclude<T, Locked | Late>;
      const end = reasonToEnd(waiter);
      if (found.state === 'late') {
        if (end === undefined && performance.now() < until) continue;
        if (end === undefined) throw createStoreTimeout(this.#limits.lockTimeout);
        if (claim !== undefined) this.#track(this.#unlock(claim));
      }
      if (end !== undefined) return reject(end);
      if (!(await this.#pause(wait, until, waiter))) return this.#rejectForNow(inProgress);
    }
  }

  /** Lets a request wait before it asks for a locked key again; gives false if it must not wait. */
  async #pause(wait: number, until: number, { scope, disconnected }: Waiter): Promise<boolean> {
    const left = until - performance.now();
    if (this.#options.duplicates === 'reject' || left <= 0) return false;
    return this.#waiting.wait(scope, Math.min(jitter(wait, 0.5, 1), left), disconnected);
  }

  /**
   * Locks the key, unless another request has. A lock that has expired before the store's reply
   * came does not count: it is late.
   */
  async #lock({ name, holder }: KeyClaim): Promise<KeyState | Late> {
    const { lockTimeout } = this.#limits;
    if (this.#lockedNames.has(name)) return { state: 'locked' };
    const askedAt = performance.now();
    const found = await this.#store.begin(name, holder, lockTimeout);
    if (found.state !== 'begun') return checkKeyState(found);
    return performance.now() - askedAt < lockTimeout ? found : { state: 'late' };
  }

  /** Gives the stored response, unless this is another request than the one that it was for. */
  async #replay(
    { response, fingerprint }: StoredResponse,
    keys: StoreKeys,
    guarded: GuardedRequest,
  ): Promise<BeginResult> {
    const hash = new BodyHash(guarded.request.method, targetOf(guarded, keys), fingerprint);
    await guarded.body.read(hash);
    return hash.matches() ? { state: 'done', response: toReplay(response) } : reject(KEY_REUSED);
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

/** The target of a request as its fingerprint has it: compensating another one makes it another. */
function targetOf({ target }: GuardedRequest, { compensates }: StoreKeys): string {
  return compensates === undefined ? target : `${target} ${compensates}`;
}

function reject(rejection: Rejection): Rejected {
  return { state: 'rejected', rejection };
}

function createStoreTimeout(lockTimeout: number): TimeoutError {
  const message = `the store of idempotency keys took longer than a lock lasts: ${lockTimeout} ms`;
  return new TimeoutError(message, lockTimeout);
}

/** Why a request must not wait any longer, if it must not. */
function reasonToEnd({ disconnected, deadline }: Waiter): Rejection | undefined {
  if (disconnected.aborted) return CLIENT_GONE;
  return performance.now() >= deadline ? PAST_DEADLINE : undefined;
}

function checkMissing(required: boolean): Rejection | undefined {
  return required ? KEY_MISSING : undefined;
}

/** Rejects any other state: it must not count as a lock, lest the request be handled twice. */
function checkKeyState(found: KeyState): CompensatedState {
  if (found.state === 'locked' || found.state === 'done' || found.state === 'revoked') return found;
  const { state } = found as { state: unknown };
  throw new TypeError(`a store of idempotency keys gave ${shown(state)}, which is no state of a key here`);
}
