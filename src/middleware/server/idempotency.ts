import { randomUUID } from 'node:crypto';
import { headerNames } from '../../client/credentials.ts';
import { isKeyedMethod } from '../../client/methods.ts';
import { TimeoutError } from '../../errors.ts';
import { isThenable } from '../../internal/decision.ts';
import {
  boolean,
  either,
  func,
  having,
  integer,
  MAX_DELAY,
  number,
  oneOf,
  validateOptions,
} from '../../internal/validate.ts';
import { type Abortable, OnAbort } from '../../policies/abort.ts';
import { BodyHash } from './body-hash.ts';
import { Hold } from './hold.ts';
import { credentialsOf, parseIdempotencyKey, SCOPE_HEADERS, storageKey } from './idempotency-key.ts';
import type { IdempotencyStore, KeyState } from './idempotency-store.ts';
import { InMemoryIdempotencyStore } from './in-memory-idempotency-store.ts';
import type { Exchange, IncomingRequest } from './incoming-request.ts';
import type { ReadyAnswer } from './ready-answer.ts';
import {
  CLIENT_GONE,
  KEY_IN_PROGRESS,
  KEY_INVALID,
  KEY_MISSING,
  KEY_REUSED,
  KEYS_UNAVAILABLE,
  PAST_DEADLINE,
  type Refusal,
} from './refusal.ts';
import { decodeAnswer, type StoredAnswer } from './stored-answer.ts';

export interface IdempotencyOptions {
  /** Where answers are kept. Default: an InMemoryIdempotencyStore, which is right where the service is one process. */
  store?: IdempotencyStore;
  /** Whether a POST or PATCH has to have a key: without one it is refused with 400. It is awaited. Default false. */
  required?: boolean | ((request: IncomingRequest) => boolean | PromiseLike<boolean>);
  /** Milliseconds that an answer is given again. Default 24 hours. */
  ttl?: number;
  /**
   * Milliseconds that a key stays taken when its holder is gone without a word. While a request is handled it is
   * renewed; when its client has gone, for ten times as long at most. Where the server itself breaks the response off,
   * the key is free at once. Default 30,000.
   */
  lease?: number;
  /** What a duplicate does while the first is handled: waits for its answer, or is refused with 409. Default 'wait'. */
  duplicates?: 'wait' | 'refuse';
  /** Milliseconds that a duplicate waits, if its deadline is not sooner; then it is refused with 409. Default 10,000. */
  waitTimeout?: number;
  /**
   * The largest body that is kept, in bytes. An answer that is larger is sent and not kept: the request is handled
   * again if it comes again. Default 1 MiB.
   */
  maxAnswerSize?: number;
  /**
   * Whose key it is: the same for a caller each time, and for no other. It is awaited. Default: the headers
   * `Authorization`, `Proxy-Authorization`, `Cookie`, `X-Api-Key`, `X-Auth-Token`, `X-Goog-Api-Key`, `X-Tenant-Id` and
   * `X-Service-Name` together, and the `credentialHeaders`. Where those change between attempts, as tokens that are
   * renewed do, give the id of the user or of the tenant, from what cannot be forged.
   */
  scope?: (request: IncomingRequest) => string | PromiseLike<string>;
  /** Names of further headers that tell callers or tenants apart, for the default `scope`. */
  credentialHeaders?: readonly string[];
  /**
   * What to do where the store is away: refuse requests that have a key with 503, or handle them as if they had none.
   * Default 'refuse': what must not happen twice does not.
   */
  whenUnavailable?: 'refuse' | 'handle';
}

/** Who is told, and what it costs a caller to come again. */
export interface IdempotencyHost {
  /** Seconds, by chance. */
  retryAfter(): number;
  failed(error: unknown): void;
  /** Another has locked the key of a request that is still handled. */
  lost(request: IncomingRequest): void;
}

/** A Hold on the key, an answer, a refusal, or undefined to handle the request as one without a key. */
export type Begun = Hold | ReadyAnswer | Refusal | undefined;

type Key = string | Refusal | undefined;

/** One request's claim to a key. */
interface Lock {
  /** Whose key it is. */
  readonly scope: string;
  /** Of the key in the store. */
  readonly name: string;
  readonly holder: string;
}

/** Duplicates that wait at the same time within one scope: those beyond are refused. */
const MAX_WAITING_PER_SCOPE = 1_000;
/** Milliseconds between two looks at a key that another holds, growing from the first to the longest. */
const FIRST_WAIT = 20;
const LONGEST_WAIT = 500;

/**
 * Lets what was asked for with an idempotency key happen once: whoever asks again gets the same answer.
 *
 * Source: the IETF draft 'The Idempotency-Key HTTP Header Field' (draft-ietf-httpapi-idempotency-key-header-07).
 */
export class Idempotency {
  readonly #store: IdempotencyStore;
  readonly #options: IdempotencyOptions;
  readonly #host: IdempotencyHost;
  readonly #kept: { lease: number; ttl: number; maxAnswerSize: number };
  readonly #scope: NonNullable<IdempotencyOptions['scope']>;
  /**
   * The keys of requests that this guard has let through, until it is known how they ended. The store may take one for
   * free before, where the event loop was blocked for longer than the lease.
   */
  readonly #held = new Set<string>();
  /** What is on its way to the store. */
  readonly #pending = new Set<Promise<void>>();
  /** How many duplicates wait, by scope. */
  readonly #waiting = new Map<string, number>();

  constructor(options: IdempotencyOptions, host: IdempotencyHost) {
    const milliseconds = number(1, MAX_DELAY);
    validateOptions('idempotency', options, {
      store: having('begin', 'complete', 'release'),
      required: either('true, false or a function', boolean, func),
      ttl: number(1),
      lease: number(100, MAX_DELAY),
      duplicates: oneOf('wait', 'refuse'),
      waitTimeout: milliseconds,
      maxAnswerSize: integer(0),
      scope: func,
      credentialHeaders: headerNames,
      whenUnavailable: oneOf('refuse', 'handle'),
    });
    this.#options = options;
    this.#host = host;
    this.#store = options.store ?? new InMemoryIdempotencyStore();
    const { lease = 30_000, ttl = 24 * 3_600_000, maxAnswerSize = 1024 * 1024 } = options;
    this.#kept = { lease, ttl, maxAnswerSize };
    if (options.scope !== undefined && options.credentialHeaders !== undefined) {
      throw new TypeError("idempotency takes the option 'scope' or 'credentialHeaders', not both");
    }
    const { credentialHeaders = [] } = options;
    const names = [...SCOPE_HEADERS, ...credentialHeaders.map((name) => name.toLowerCase())];
    this.#scope = options.scope ?? ((request) => credentialsOf(request, names));
  }

  /**
   * The key of a request; undefined where it needs none, a refusal where it is missing or not well formed. A promise
   * only where `required` gives one.
   */
  keyOf(request: IncomingRequest): Key | Promise<Key> {
    if (!isKeyedMethod(request.method)) return undefined;
    const field = request.headers['idempotency-key'];
    if (field !== undefined) return parseIdempotencyKey(field) ?? KEY_INVALID;
    const { required = false } = this.#options;
    const missing = typeof required === 'function' ? required(request) : required;
    return isThenable(missing) ? Promise.resolve(missing).then(keyWithout) : keyWithout(missing);
  }

  /** Takes the key, or finds out what it was answered with: at once, or after waiting for whoever has it. */
  async begin(key: string, exchange: Exchange, deadline: number): Promise<Begun> {
    const given = this.#scope(exchange.request);
    const scope = isThenable(given) ? await given : given;
    if (typeof scope !== 'string') {
      throw new TypeError(`idempotency option 'scope' must give a string; got ${typeof scope}`);
    }
    const lock = { scope, name: storageKey(scope, key), holder: randomUUID() };
    try {
      return await this.#begin(lock, exchange, deadline);
    } catch (error) {
      this.#host.failed(error);
      // The key may be taken although nobody said so.
      this.#track(this.#giveBack(lock));
      if (this.#options.whenUnavailable === 'handle') return undefined;
      return { ...KEYS_UNAVAILABLE, retryAfter: this.#host.retryAfter() };
    }
  }

  /** Waits for what is on its way to the store. */
  async close(): Promise<void> {
    while (this.#pending.size > 0) await Promise.all(this.#pending);
  }

  async #begin(lock: Lock, exchange: Exchange, deadline: number): Promise<Begun> {
    const state = await this.#state(lock, exchange.gone, deadline);
    if ('status' in state) return state;
    const { request, target, gone, body } = exchange;
    if (state.state === 'done') return this.#again(decodeAnswer(state.answer), exchange);
    const hash = new BodyHash(request.method, target);
    const { name, holder } = lock;
    const hold = new Hold(this.#store, { name, holder, ...this.#kept }, hash, {
      failed: (error) => this.#host.failed(error),
      track: (work) => this.#track(work),
      lost: () => this.#host.lost(request),
      ended: () => this.#held.delete(name),
    });
    this.#held.add(name);
    try {
      await body.observe(hash);
    } catch (error) {
      hold.release();
      throw error;
    }
    if (!gone.aborted) return hold;
    hold.release();
    return CLIENT_GONE;
  }

  /** How it stands with the key once nobody else holds it; a refusal where that takes too long. */
  async #state(
    lock: Lock,
    gone: Abortable,
    deadline: number,
  ): Promise<Exclude<KeyState, { state: 'held' }> | Refusal> {
    const { duplicates = 'wait', waitTimeout = 10_000 } = this.#options;
    const until = Math.min(deadline, performance.now() + waitTimeout);
    for (let wait = FIRST_WAIT; ; wait = Math.min(LONGEST_WAIT, wait * 1.5)) {
      const state = await this.#ask(lock);
      if (state.state !== 'held' && state.state !== 'late') return state;
      const now = performance.now();
      const ended = gone.aborted ? CLIENT_GONE : now >= deadline ? PAST_DEADLINE : undefined;
      if (state.state === 'late') {
        if (ended === undefined && now < until) continue;
        if (ended === undefined) throw tooSlow(this.#kept.lease);
        this.#track(this.#giveBack(lock));
      }
      if (ended !== undefined) return ended;
      const waiting = this.#waiting.get(lock.scope) ?? 0;
      const refused = duplicates === 'refuse' || waiting >= MAX_WAITING_PER_SCOPE || now >= until;
      if (refused) return { ...KEY_IN_PROGRESS, retryAfter: this.#host.retryAfter() };
      this.#waiting.set(lock.scope, waiting + 1);
      await pause(Math.min(wait * (0.5 + Math.random() / 2), until - performance.now()), gone);
      this.#endWait(lock.scope);
    }
  }

  #endWait(scope: string): void {
    const others = this.#waiting.get(scope)! - 1;
    if (others === 0) this.#waiting.delete(scope);
    else this.#waiting.set(scope, others);
  }

  /** Locks the key, unless it is locked. A lock that has expired before the store's word came is not one: it is late. */
  async #ask({ name, holder }: Lock): Promise<KeyState | { state: 'late' }> {
    const { lease } = this.#kept;
    if (this.#held.has(name)) return { state: 'held' };
    const askedAt = performance.now();
    const state = await this.#store.begin(name, holder, lease);
    return state.state === 'begun' && performance.now() - askedAt >= lease ? { state: 'late' } : state;
  }

  /** The answer that was given, unless this is another request. */
  async #again({ answer, fingerprint }: StoredAnswer, exchange: Exchange): Promise<ReadyAnswer | Refusal> {
    const hash = new BodyHash(exchange.request.method, exchange.target, fingerprint);
    await exchange.body.read(hash);
    return hash.matches() ? answer : KEY_REUSED;
  }

  /** Also where the store throws at once. */
  async #giveBack({ name, holder }: Lock): Promise<void> {
    await this.#store.release(name, holder);
  }

  #track(work: Promise<void>): void {
    const tracked = work
      .catch((error) => this.#host.failed(error))
      .then(() => void this.#pending.delete(tracked));
    this.#pending.add(tracked);
  }
}

function tooSlow(lease: number): TimeoutError {
  return new TimeoutError(`the store of idempotency keys took longer than a lock lasts: ${lease} ms`, lease);
}

function keyWithout(required: boolean): Refusal | undefined {
  return required ? KEY_MISSING : undefined;
}

/** Waits, or less where the client goes meanwhile. */
function pause(wait: number, gone: Abortable): Promise<void> {
  return new Promise((resolve) => {
    const stop = () => {
      clearTimeout(timer);
      gone.unlisten(onAbort);
      resolve();
    };
    const onAbort = new OnAbort(stop);
    const timer = setTimeout(stop, wait).unref();
    gone.listen(onAbort);
  });
}
