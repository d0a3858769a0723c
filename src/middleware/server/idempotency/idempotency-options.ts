import { headerNames } from '../../../client/credentials.ts';
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
import type { IncomingRequest } from '../guard/incoming-request.ts';
import type { IdempotencyStore } from './idempotency-store.ts';

export interface IdempotencyOptions {
  /**
   * Stores the responses. Default: an InMemoryIdempotencyStore, which is right for a service that
   * is one process.
   */
  store?: IdempotencyStore | undefined;
  /**
   * Whether a POST or PATCH must have a key: without one it is rejected with 400. A promise is
   * awaited, for five seconds at most: then the request gets 500. Default false.
   */
  required?: boolean | ((request: IncomingRequest) => boolean | PromiseLike<boolean>) | undefined;
  /**
   * Milliseconds for which a response is stored and replayed, and for which a request that was
   * compensated before it came is rejected. Default 24 hours.
   */
  ttl?: number | undefined;
  /**
   * Milliseconds for which a key stays locked when its process died. While a request is handled its
   * lock is renewed; when its client has disconnected, for ten times as long at most. When the
   * server itself aborts the response, the key is unlocked at once. Default 30,000.
   */
  lockTimeout?: number | undefined;
  /**
   * Whether a duplicate waits for the response while the first request is handled, or is rejected
   * with 409. Default 'wait'.
   */
  duplicates?: 'wait' | 'reject' | undefined;
  /**
   * Milliseconds that a duplicate waits, unless its deadline is sooner; then it is rejected with
   * 409. Default 10,000.
   */
  waitTimeout?: number | undefined;
  /**
   * The largest body that is stored, in bytes. A larger response is sent and not stored: the
   * request is handled again if it comes again. Default 1 MiB.
   */
  maxResponseSize?: number | undefined;
  /**
   * Gives the scope of a key: the same for a caller each time, and for no other. A promise is
   * awaited, for five seconds at most: then the request gets 500. Default: the headers
   * `Authorization`, `Proxy-Authorization`, `Cookie`, `X-Api-Key`, `X-Auth-Token`, `X-Goog-Api-Key`,
   * `X-Tenant-Id` and `X-Service-Name` together, the `credentialHeaders`, and the identity that a
   * gateway has proven. If those change between attempts, as tokens that are renewed do, give the id
   * of the user or of the tenant, from a source that cannot be forged.
   */
  scope?: ((request: IncomingRequest) => string | PromiseLike<string>) | undefined;
  /** Names of further headers that tell callers or tenants apart, for the default `scope`. */
  credentialHeaders?: readonly string[] | undefined;
  /**
   * Whether requests that have a key are rejected with 503 while the store is unavailable, or
   * handled as if they had none. Default 'reject': nothing that must not happen twice does. Those
   * with a `Compensates-Key` are rejected in any case.
   */
  whenUnavailable?: 'reject' | 'handle' | undefined;
}

/** The new names of options and of their values, by their former names. */
const RENAMED: RenamedOptions = {
  // The former names of two options.
  ...{ lease: 'lockTimeout', maxAnswerSize: 'maxResponseSize' },
  // The former names of two values.
  ...{ duplicates: { refuse: 'reject' }, whenUnavailable: { refuse: 'reject' } },
};

/** @throws TypeError or RangeError that names the option that is not allowed */
export function checkIdempotencyOptions(options: IdempotencyOptions): void {
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
  if (options.scope !== undefined && options.credentialHeaders !== undefined) {
    throw new TypeError("idempotency takes the option 'scope' or 'credentialHeaders', not both");
  }
}
