import { randomUUID } from 'node:crypto';
import { isKeyedMethod } from '../../client/methods.ts';
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
import { credentialsOf, parseIdempotencyKey, storageKey } from './idempotency-key.ts';
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
  /** Whether a POST or PATCH has to have a key: without one it is refused with 400. Default false. */
  required?: boolean | ((request: IncomingRequest) => boolean);
  /** Milliseconds that an answer is given again. Default 24 hours. */
  ttl?: number;
  /**
   * Milliseconds that a key stays taken when its holder is gone without a word. While a request is handled it is
   * renewed; when its client has gone, for ten times as long at most. Default 30,000.
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
   * Whose key it is: the same for a caller each time, and for no other. Default: the headers `Authorization`,
   * `Cookie`, `X-Api-Key` and `X-Service-Name` together. Where those change between tries, as tokens that are renewed
   * do, give the id of the user or of the tenant, from what cannot be forged.
   */
  scope?: (request: IncomingRequest) => string;
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
}

/** A Hold on the key, an answer, a refusal, or undefined to handle the request as one without a key. */
export type Begun = Hold | ReadyAnswer | Refusal | undefined;

/** Duplicates that wait at the same time: those beyond are refused. */
const MAX_WAITING = 1_000;
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
  /** What is on its way to the store. */
  readonly #pending = new Set<Promise<void>>();
  #waiting = 0;

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
      whenUnavailable: oneOf('refuse', 'handle'),
    });
    this.#options = options;
    this.#host = host;
    this.#store = options.store ?? new InMemoryIdempotencyStore();
    const { lease = 30_000, ttl = 24 * 3_600_000, maxAnswerSize = 1024 * 1024 } = options;
    this.#kept = { lease, ttl, maxAnswerSize };
  }

  /** The key of a request; undefined where it needs none, a refusal where it is missing or not well formed. */
  keyOf(request: IncomingRequest): string | Refusal | undefined {
    if (!isKeyedMethod(request.method)) return undefined;
    const field = request.headers['idempotency-key'];
    if (field !== undefined) return parseIdempotencyKey(field) ?? KEY_INVALID;
    const { required = false } = this.#options;
    return (typeof required === 'function' ? required(request) : required) ? KEY_MISSING : undefined;
  }

  /** Takes the key, or finds out what it was answered with: at once, or after waiting for whoever has it. */
  async begin(key: string, exchange: Exchange, deadline: number): Promise<Begun> {
    const { scope = credentialsOf } = this.#options;
    const name = storageKey(scope(exchange.request), key);
    const holder = randomUUID();
    try {
      return await this.#begin(name, holder, exchange, deadline);
    } catch (error) {
      this.#host.failed(error);
      // The key may be taken although nobody said so.
      this.#track(this.#store.release(name, holder));
      if (this.#options.whenUnavailable === 'handle') return undefined;
      return { ...KEYS_UNAVAILABLE, retryAfter: this.#host.retryAfter() };
    }
  }

  /** Waits for what is on its way to the store. */
  async close(): Promise<void> {
    while (this.#pending.size > 0) await Promise.all(this.#pending);
  }

  async #begin(name: string, holder: string, exchange: Exchange, deadline: number): Promise<Begun> {
    const state = await this.#state(name, holder, exchange.gone, deadline);
    if ('status' in state) return state;
    const { request, target, gone, body } = exchange;
    if (state.state === 'done') return this.#again(decodeAnswer(state.answer), exchange);
    const hash = new BodyHash(request.method, target);
    const hold = new Hold(this.#store, { name, holder, ...this.#kept }, hash, {
      failed: (error) => this.#host.failed(error),
      track: (work) => this.#track(work),
    });
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
    name: string,
    holder: string,
    gone: Abortable,
    deadline: number,
  ): Promise<Exclude<KeyState, { state: 'held' }> | Refusal> {
    const { duplicates = 'wait', waitTimeout = 10_000 } = this.#options;
    const until = Math.min(deadline, performance.now() + waitTimeout);
    for (let wait = FIRST_WAIT; ; wait = Math.min(LONGEST_WAIT, wait * 1.5)) {
      const state = await this.#store.begin(name, holder, this.#kept.lease);
      if (state.state !== 'held') return state;
      if (gone.aborted) return CLIENT_GONE;
      if (performance.now() >= deadline) return PAST_DEADLINE;
      const refused = duplicates === 'refuse' || this.#waiting >= MAX_WAITING || performance.now() >= until;
      if (refused) return { ...KEY_IN_PROGRESS, retryAfter: this.#host.retryAfter() };
      this.#waiting++;
      await pause(Math.min(wait * (0.5 + Math.random() / 2), until - performance.now()), gone);
      this.#waiting--;
    }
  }

  /** The answer that was given, unless this is another request. */
  async #again({ answer, fingerprint }: StoredAnswer, exchange: Exchange): Promise<ReadyAnswer | Refusal> {
    const hash = new BodyHash(exchange.request.method, exchange.target, fingerprint);
    await exchange.body.read(hash);
    return hash.matches() ? answer : KEY_REUSED;
  }

  #track(work: Promise<void>): void {
    const tracked = work
      .catch((error) => this.#host.failed(error))
      .then(() => void this.#pending.delete(tracked));
    this.#pending.add(tracked);
  }
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
