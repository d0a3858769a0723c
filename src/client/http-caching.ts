import { hash, randomUUID } from 'node:crypto';
import type { LRUCache } from 'lru-cache';
import { keyOf as keyOfSelector } from '../balancing/selector.ts';
import { ServiceResponseError } from '../errors.ts';
import { growingLru } from '../internal/growing-lru.ts';
import { any, boolean, validateOptions } from '../internal/validate.ts';
import { Cache } from '../policies/cache.ts';
import type { CachedCall, CacheOptions, Freshness } from '../policies/cache-options.ts';
import type { CallContext } from '../policies/context.ts';
import type { Outcome } from '../policies/outcome.ts';
import { type CallState, stateOf, stripQuery } from './call-state.ts';
import { AUTHENTICATION_HEADERS, headerNames, IDENTITY_HEADERS } from './credentials.ts';
import { freshnessOf, hasAny, MAX_HEADER_LENGTH, parseDirectives } from './http-freshness.ts';
import { isRetrieval, isSafeMethod } from './methods.ts';
import type { ResponseHead, ResponseHeaders } from './response.ts';

export interface HttpCacheOptions
  extends Pick<
    CacheOptions,
    'jitter' | 'staleWhileRevalidate' | 'staleIfError' | 'negativeTtl' | 'maxEntries' | 'random' | 'clock'
  > {
  /** The largest sum of the sizes of all entries, in bytes. Default 64 MiB. */
  maxSize?: number | undefined;
  /**
   * Whether responses to requests with Authorization or Cookie may be kept, where the response
   * itself allows it: `public`, `s-maxage` or `must-revalidate`. A response is served to the same
   * credential only. Default false.
   */
  allowAuthorization?: boolean | undefined;
  /**
   * Names of further request headers that tell callers or tenants apart: responses are kept for
   * each value by itself, as they are for `X-Api-Key`, `X-Auth-Token`, `X-Goog-Api-Key` and
   * `X-Tenant-Id`. Default: none.
   */
  credentialHeaders?: readonly string[] | undefined;
}

/** The part of a CallState on which the response depends. */
type HttpCall = Pick<CallState, 'service' | 'request' | 'headers' | 'select'>;

/**
 * Stands for all responses of one path of one service. Once it is dropped, the responses that are
 * kept for it are no longer found.
 */
interface Resource {
  /** name begins every key of the resource; no two resources ever have the same. */
  readonly name: string;
  /**
   * vary names the request headers that the responses depend on, by the `Vary` of all responses so
   * far.
   */
  vary: readonly string[];
}

const DEFAULT_MAX_ENTRIES = 1_000;
const DEFAULT_MAX_SIZE = 64 * 1024 * 1024;
/**
 * The number of resources that are remembered for each entry: responses that are not kept have one
 * too.
 */
const RESOURCES_PER_ENTRY = 10;

const CREDENTIALS: ReadonlySet<string> = new Set(AUTHENTICATION_HEADERS);
/**
 * Request headers that ask for a part of a response, or for a response that only their caller can
 * use.
 */
const PARTIAL_OR_CONDITIONAL: ReadonlySet<string> = new Set([
  'range',
  'if-match',
  'if-none-match',
  'if-modified-since',
  'if-unmodified-since',
  'if-range',
]);
/**
 * Request headers that differ with each call, so that a response that varies by them is never
 * served again.
 */
const PER_CALL: ReadonlySet<string> = new Set([
  'x-request-id',
  'x-request-timeout',
  'traceparent',
  'tracestate',
]);
/**
 * Request directives by which a caller asks for a response that is fresher than a kept one may be.
 * Source: RFC 9111, section 5.2.1.
 */
const BYPASSING = ['no-store', 'no-cache', 'max-age', 'min-fresh'];
/** Response directives with which a response is not kept. */
const FORBIDS_KEEPING = ['no-store', 'no-cache', 'private'];
/**
 * Response directives with which a response to a request with credentials may be kept. Source: RFC
 * 9111, section 3.5.
 */
const SHAREABLE = ['public', 's-maxage', 'must-revalidate'];
/**
 * The statuses for which `stale-if-error` holds; it also holds for errors without a response.
 * Source: RFC 5861, section 4.
 */
const STALE_IF_ERROR: ReadonlySet<number> = new Set([500, 502, 503, 504]);

/** The longest path whose responses are kept. */
const MAX_PATH_LENGTH = 2_048;
const MAX_VARY = 8;
/**
 * The salt of this process: a reader of the digest of a header cannot find out its value by
 * comparing digests of likely values.
 */
const SALT = randomUUID();

/**
 * A Cache for the responses of services, as HTTP defines it: a shared cache by RFC 9111 with the
 * stale-* directives of RFC 5861. It keeps the response to a GET or HEAD for as long as the
 * response says by `s-maxage`, `max-age` or `Expires`, and no longer than a day. It does not
 * revalidate, so that a response with `no-cache` is not kept.
 *
 * A response with `must-revalidate` or `proxy-revalidate` is never served stale. Beside `s-maxage`
 * only the directives of the response itself count; otherwise the options hold where the response
 * says nothing. `stale-if-error` holds where there is no response, and for 500, 502, 503 and 504.
 *
 * Of responses with `Vary` one is kept for each set of values of the request headers that `Vary`
 * names. The responses of a resource tell what it varies by: a response whose `Vary` names a header
 * of its request for the first time is not kept, since the cache looked for it without that header.
 * The headers that tell callers or tenants apart count as named by all responses. A call with
 * `select` shares responses only with calls that select the same.
 */
export class HttpCaching {
  /** cache expects a CallState as the record of the call, and gives BufferedResponses. */
  readonly cache: Cache;
  readonly #allowAuthorization: boolean;
  /** #identity names the headers whose values are part of each key. */
  readonly #identity: ReadonlySet<string>;
  readonly #resources: LRUCache<string, Resource>;
  #resourcesSoFar = 0;

  constructor(options: HttpCacheOptions = {}) {
    validateOptions('the HTTP cache', options, {
      jitter: any,
      staleWhileRevalidate: any,
      staleIfError: any,
      negativeTtl: any,
      maxEntries: any,
      random: any,
      clock: any,
      maxSize: any,
      allowAuthorization: boolean,
      credentialHeaders: headerNames,
    });
    const { allowAuthorization = false, credentialHeaders = [], ...others } = options;
    const { maxEntries = DEFAULT_MAX_ENTRIES, maxSize = DEFAULT_MAX_SIZE } = options;
    this.#allowAuthorization = allowAuthorization;
    this.#identity = new Set([
      ...IDENTITY_HEADERS,
      ...credentialHeaders.map((name) => name.toLowerCase()),
      ...(allowAuthorization ? CREDENTIALS : []),
    ]);
    this.cache = new Cache({
      ...others,
      maxEntries,
      maxSize,
      sizeOf,
      key: (context) => this.#keyOf(stateOf(context)),
      shouldServeStale: (error) =>
        !(error instanceof ServiceResponseError) || STALE_IF_ERROR.has(error.status),
      freshness: (outcome, context, call) => this.#freshnessOf(outcome, stateOf(context), call),
    });
    this.#resources = growingLru(maxEntries * RESOURCES_PER_ENTRY);
  }

  /**
   * Gives the key of a call for a Coalesce inside the cache: only calls whose callers gave the same
   * headers share a request.
   */
  readonly coalesceKey = (context: CallContext): string | undefined => {
    const call = stateOf(context);
    const resource = this.#resourceOf(call);
    return resource && keyFor(call, resource, call.request.headers.join('\n'));
  };

  /**
   * Drops the responses that are kept for the path of a call, if the call may have changed it,
   * whatever its response. It is called when the call is over. Source: RFC 9111, section 4.4.
   *
   * @internal
   */
  invalidateAfter(call: HttpCall): void {
    if (!isSafeMethod(call.request.method)) this.#resources.delete(resourceKeyOf(call));
  }

  #keyOf(call: HttpCall): string | undefined {
    const resource = this.#resourceOf(call);
    if (resource === undefined) return undefined;
    const identified = hasHeaderOf(this.#identity, call.headers);
    const names = identified ? [...resource.vary, ...this.#identity] : resource.vary;
    return keyFor(call, resource, variantOf(call.headers, names));
  }

  /** Gives the resource of a call; undefined if the call needs a response of its own. */
  #resourceOf(call: HttpCall): Resource | undefined {
    const { method, path, body } = call.request;
    if (!isRetrieval(method) || body !== null) return undefined;
    if (path.length > MAX_PATH_LENGTH || !this.#mayBeShared(call)) return undefined;
    const key = resourceKeyOf(call);
    let resource = this.#resources.get(key);
    if (resource === undefined) {
      resource = { name: `${++this.#resourcesSoFar} ${call.service}${stripQuery(path)}`, vary: [] };
      this.#resources.set(key, resource);
    }
    return resource;
  }

  #mayBeShared({ headers }: HttpCall): boolean {
    for (let index = 0; index < headers.length; index += 2) {
      const name = headers[index]!;
      if (PARTIAL_OR_CONDITIONAL.has(name)) return false;
      if (CREDENTIALS.has(name) && !this.#allowAuthorization) return false;
      if (name === 'cache-control' || name === 'pragma') {
        const directives = parseDirectives(headers[index + 1]);
        if (directives === undefined || hasAny(directives, BYPASSING)) return false;
      }
    }
    return true;
  }

  #freshnessOf(
    outcome: Outcome<unknown>,
    call: CallState,
    { key, elapsed }: CachedCall,
  ): Freshness | undefined {
    if (!outcome.ok && !(outcome.error instanceof ServiceResponseError)) return {};
    const response = (outcome.ok ? outcome.value : outcome.error) as ResponseHead;
    const directives = parseDirectives(response.headers['cache-control']);
    if (directives === undefined || hasAny(directives, FORBIDS_KEEPING)) return undefined;
    if (response.headers['set-cookie'] !== undefined) return undefined;
    if (hasHeaderOf(CREDENTIALS, call.headers) && !hasAny(directives, SHAREABLE)) return undefined;
    if (!this.#learnVary(call, response.headers.vary)) return undefined;
    // The response was looked for under another key if its `Vary` is new, or if the resource has
    // changed meanwhile.
    if (this.#keyOf(call) !== key) return undefined;
    return outcome.ok ? freshnessOf(response, directives, elapsed) : {};
  }

  /**
   * Takes in the `Vary` of a response; false if the response can be served to no other request.
   */
  #learnVary(call: HttpCall, header: string | string[] | undefined): boolean {
    if (header === undefined) return true;
    const text = String(header).toLowerCase();
    if (text.length > MAX_HEADER_LENGTH) return false;
    const resource = this.#resourceOf(call)!;
    const names = new Set(resource.vary);
    for (const item of text.split(',')) {
      const name = item.trim();
      if (name === '*' || PER_CALL.has(name)) return false;
      names.add(name);
    }
    if (names.size > MAX_VARY) return false;
    if (names.size > resource.vary.length) resource.vary = [...names];
    return true;
  }
}

/**
 * Gives the key of a resource. A path has no space, so that the last space ends the service name.
 */
function resourceKeyOf({ service, request }: HttpCall): string {
  return `${service} ${request.path}`;
}

/**
 * Gives the key of a response. The selector comes before the headers, none of which has a name that
 * begins like a selector. A digest stands for both, since the events of the cache show the key.
 */
function keyFor({ request, select }: HttpCall, { name }: Resource, ofHeaders: string): string {
  const variant = select ? `${keyOfSelector(select)}\n${ofHeaders}` : ofHeaders;
  if (variant === '') return `${request.method} ${name}`;
  return `${request.method} ${name}\n${hash('sha256', `${SALT}${variant}`, 'base64url')}`;
}

/**
 * Gives the values of the named headers, which have no line break. An absent header differs from an
 * empty one.
 */
function variantOf(headers: readonly string[], names: readonly string[]): string {
  let variant = '';
  for (const name of names) {
    for (let index = 0; index < headers.length; index += 2) {
      if (headers[index] === name) variant += `${name}:${headers[index + 1]}\n`;
    }
  }
  return variant;
}

function hasHeaderOf(names: ReadonlySet<string>, headers: readonly string[]): boolean {
  for (let index = 0; index < headers.length; index += 2) if (names.has(headers[index]!)) return true;
  return false;
}

/** Estimates the size of an entry in bytes. A string takes at most two bytes for each character. */
function sizeOf(outcome: Outcome<unknown>, key: string): number {
  const { headers, body } = ((outcome.ok ? outcome.value : outcome.error) ?? {}) as {
    headers?: ResponseHeaders | undefined;
    body?: unknown;
  };
  const content = typeof body === 'string' ? body.length : (JSON.stringify(body)?.length ?? 0);
  return 2 * (key.length + content + JSON.stringify(headers ?? {}).length);
}
