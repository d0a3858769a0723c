import { hash, randomUUID } from 'node:crypto';
import type { LRUCache } from 'lru-cache';
import { keyOf as keyOfSelector } from '../balancing/selector.ts';
import { ServiceResponseError } from '../errors.ts';
import { growingLru } from '../internal/growing-lru.ts';
import { any, boolean, validateOptions } from '../internal/validate.ts';
import { Cache, type CachedCall, type CacheOptions, type Freshness } from '../policies/cache.ts';
import type { CallContext } from '../policies/context.ts';
import type { Outcome } from '../policies/outcome.ts';
import { type CallState, stateOf, stripQuery } from './call-state.ts';
import { AUTHENTICATION_HEADERS, headerNames, IDENTITY_HEADERS } from './credentials.ts';
import { isRetrieval, isSafeMethod } from './methods.ts';
import type { ResponseHead, ResponseHeaders } from './response.ts';

export interface HttpCacheOptions
  extends Pick<
    CacheOptions,
    'jitter' | 'staleWhileRevalidate' | 'staleIfError' | 'negativeTtl' | 'maxEntries' | 'random'
  > {
  /** Sum of the sizes of all entries, in bytes. Default 64 MiB. */
  maxSize?: number;
  /**
   * Whether answers to requests that carry Authorization or Cookie may be kept, where the answer itself allows
   * it: `public`, `s-maxage` or `must-revalidate`. Each credential sees only its own. Default false.
   */
  allowAuthorization?: boolean;
  /**
   * Names of further request headers that tell callers or tenants apart: answers are kept for each value by itself, as
   * they are for `X-Api-Key`, `X-Auth-Token`, `X-Goog-Api-Key` and `X-Tenant-Id`.
   */
  credentialHeaders?: readonly string[];
}

/** The part of a CallState that tells which answer it asks for. */
type HttpCall = Pick<CallState, 'service' | 'request' | 'headers' | 'select'>;

/** All that is under one path of one service. Dropping it puts out of reach whatever is kept for it. */
interface Resource {
  /** Leads every key of the resource; no two resources ever have the same. */
  readonly name: string;
  /** The request headers that its answers depend on, by the `Vary` of all those seen so far. */
  vary: readonly string[];
}

const DEFAULT_MAX_ENTRIES = 1_000;
const DEFAULT_MAX_SIZE = 64 * 1024 * 1024;
/** Resources remembered for each entry, since answers that are not kept have one too. */
const RESOURCES_PER_ENTRY = 10;

/** RFC 9110, section 15.1, but for 206, which is a part, and 501, which is an error of the call here. */
const CACHEABLE_STATUSES: ReadonlySet<number> = new Set([200, 203, 204, 300, 301, 308, 404, 405, 410, 414]);
const CREDENTIALS: ReadonlySet<string> = new Set(AUTHENTICATION_HEADERS);
/** Those that ask for a part, or for an answer that means something only to the one who asks. */
const PARTIAL_OR_CONDITIONAL: ReadonlySet<string> = new Set([
  'range',
  'if-match',
  'if-none-match',
  'if-modified-since',
  'if-unmodified-since',
  'if-range',
]);
/** Those that are another with each call, so that an answer that varies by them is never asked for again. */
const PER_CALL: ReadonlySet<string> = new Set([
  'x-request-id',
  'x-request-timeout',
  'traceparent',
  'tracestate',
]);
/** Request directives (RFC 9111, section 5.2.1) by which a caller asks for more than what is kept may be. */
const BYPASSING = ['no-store', 'no-cache', 'max-age', 'min-fresh'];
const FORBIDS_KEEPING = ['no-store', 'no-cache', 'private'];
/** RFC 9111, section 3.5. */
const SHAREABLE = ['public', 's-maxage', 'must-revalidate'];
/** RFC 5861, section 4: the errors for which `stale-if-error` holds, besides those without an answer. */
const STALE_IF_ERROR: ReadonlySet<number> = new Set([500, 502, 503, 504]);
const NEVER_STALE = ['must-revalidate', 'proxy-revalidate'];

/** Longer headers are not read. */
const MAX_HEADER_LENGTH = 1_024;
/** What is under longer ones is not kept. */
const MAX_PATH_LENGTH = 2_048;
const MAX_VARY = 8;
/** Of this process: whoever sees the digest of a header cannot tell which value it is of by trying some. */
const SALT = randomUUID();
/** Seconds: what an answer says by mistake, or by malice, is not believed for more than a day. */
const MAX_SECONDS = 86_400;

/**
 * A Cache for the answers of services, as HTTP wants it: a shared cache by RFC 9111 with the stale-* directives
 * of RFC 5861. It keeps what a GET or HEAD was answered with, if the answer tells for how long by `s-maxage`,
 * `max-age` or `Expires`, and no longer than a day. It does not revalidate: `no-cache` is not kept.
 *
 * An answer with `must-revalidate` or `proxy-revalidate` is never served stale. Beside `s-maxage` only what the
 * answer itself grants counts; else what it does not say is as the options say. `stale-if-error` holds where there
 * is no answer, and for 500, 502, 503 and 504.
 *
 * Of answers with `Vary` there is one for each set of values of the request headers named. What a resource
 * varies by is learnt from its answers: one whose request has a header that is named for the first time is not
 * kept, since it was looked for without. The headers that tell callers or tenants apart count as named by all. A call with `select` shares answers only with those that select the same.
 */
export class HttpCaching {
  /** Expects a CallState as the record of the call, and gives BufferedResponses. */
  readonly cache: Cache;
  readonly #allowAuthorization: boolean;
  /** The headers whose values are part of each key. */
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

  /** For a Coalesce inside the cache: only requests with all the same headers of their callers share one. */
  readonly coalesceKey = (context: CallContext): string | undefined => {
    const call = stateOf(context);
    const resource = this.#resourceOf(call);
    return resource && keyFor(call, resource, call.request.headers.join('\n'));
  };

  /**
   * To be called when a call is over: what is kept for the path is outdated if the call may have changed it
   * (RFC 9111, section 4.4), whatever it was answered with.
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

  /** Undefined if no other answer than the call's own will do. */
  #resourceOf(call: HttpCall): Resource | undefined {
    const { method, path, body } = call.request;
    if (!isRetrieval(method) || body !== null) return undefined;
    if (path.length > MAX_PATH_LENGTH || !this.#mayBeShared(call)) return undefined;
    const place = resourceKeyOf(call);
    let resource = this.#resources.get(place);
    if (resource === undefined) {
      resource = { name: `${++this.#resourcesSoFar} ${call.service}${stripQuery(path)}`, vary: [] };
      this.#resources.set(place, resource);
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
    // It was looked for under another key if its `Vary` is news, or if the resource has changed meanwhile.
    if (this.#keyOf(call) !== key) return undefined;
    return outcome.ok ? freshnessOf(response, directives, elapsed) : {};
  }

  /** False if the answer is one that no other request can be answered with. */
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

/** A path has no space in it, so that the last one ends the name of the service. */
function resourceKeyOf({ service, request }: HttpCall): string {
  return `${service} ${request.path}`;
}

/**
 * What is selected stands before the headers, none of which has a name that begins like it. Both are told by a digest: the
 * events of the cache show the key.
 */
function keyFor({ request, select }: HttpCall, { name }: Resource, ofHeaders: string): string {
  const variant = select ? `${keyOfSelector(select)}\n${ofHeaders}` : ofHeaders;
  if (variant === '') return `${request.method} ${name}`;
  return `${request.method} ${name}\n${hash('sha256', `${SALT}${variant}`, 'base64url')}`;
}

/** The values of the named headers, which have no line break; an absent one is not the same as an empty one. */
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

function hasAny(directives: ReadonlyMap<string, string>, names: readonly string[]): boolean {
  return names.some((name) => directives.has(name));
}

/**
 * The directives of a Cache-Control header, RFC 9111, section 5.2. One that comes twice with different
 * arguments has none, so that it counts as malformed. Undefined if the header is too long to be read.
 */
function parseDirectives(header: string | string[] | undefined): ReadonlyMap<string, string> | undefined {
  const text = header === undefined ? '' : String(header);
  if (text.length > MAX_HEADER_LENGTH) return undefined;
  const directives = new Map<string, string>();
  for (const [, name, quoted, token] of text.matchAll(
    /([!#$%&'*+.^_`|~\w-]+)(?:\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]*)))?/g,
  )) {
    const key = name!.toLowerCase();
    const argument = quoted ?? token ?? '';
    const before = directives.get(key);
    directives.set(key, before === undefined || before === argument ? argument : '');
  }
  return directives;
}

function freshnessOf(
  { status, headers }: ResponseHead,
  directives: ReadonlyMap<string, string>,
  elapsed: number,
): Freshness | undefined {
  const lifetime = lifetimeOf(directives, headers);
  if (lifetime === undefined || !CACHEABLE_STATUSES.has(status)) return undefined;
  // RFC 9111, section 4.2.3: the corrected age value, which needs no clocks that agree.
  const ttl = 1000 * (Math.min(lifetime, MAX_SECONDS) - ageOf(headers)) - elapsed;
  if (hasAny(directives, NEVER_STALE)) return { ttl, staleWhileRevalidate: 0, staleIfError: 0 };
  return {
    ttl,
    staleWhileRevalidate: extensionOf(directives, 'stale-while-revalidate'),
    staleIfError: extensionOf(directives, 'stale-if-error'),
  };
}

/** Seconds for which an answer is fresh from when it was made, RFC 9111, section 4.2.1. */
function lifetimeOf(directives: ReadonlyMap<string, string>, headers: ResponseHeaders): number | undefined {
  const argument = directives.get('s-maxage') ?? directives.get('max-age');
  if (argument !== undefined) return secondsOf(argument);
  if (headers.expires === undefined) return undefined;
  const expires = dateOf(headers.expires);
  // Where the answer has no date it is of now: the one use of the wall clock, since `Expires` is a date.
  const date = headers.date === undefined ? Date.now() : dateOf(headers.date);
  return expires === undefined || date === undefined ? 0 : (expires - date) / 1000;
}

/** Milliseconds; undefined leaves it to the options. */
function extensionOf(directives: ReadonlyMap<string, string>, name: string): number | undefined {
  const argument = directives.get(name);
  if (argument !== undefined) return 1000 * Math.min(secondsOf(argument), MAX_SECONDS);
  // RFC 9111, section 5.2.2.10: `s-maxage` takes back what the options allow, as `proxy-revalidate` does.
  return directives.has('s-maxage') ? 0 : undefined;
}

/** RFC 9111, section 4.2.1: what is malformed makes an answer stale. */
function secondsOf(argument: string): number {
  return /^\d+$/.test(argument) ? Number(argument) : 0;
}

/** RFC 9111, section 5.1: of several the first counts, one that is malformed does not. */
function ageOf({ age }: ResponseHeaders): number {
  return age === undefined ? 0 : secondsOf(String(age).split(',', 1)[0]!.trim());
}

/** RFC 9110, section 5.6.7: the form that is sent, and the two obsolete ones, the last of which names no zone. */
const HTTP_DATE =
  /^(?:[A-Z][a-z]{2}, \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d GMT|[A-Z][a-z]{5,8}, \d\d-[A-Z][a-z]{2}-\d\d \d\d:\d\d:\d\d GMT|[A-Z][a-z]{2} [A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d \d{4})$/;

/** Epoch milliseconds. */
function dateOf(header: string | string[]): number | undefined {
  if (typeof header !== 'string' || !HTTP_DATE.test(header)) return undefined;
  const date = Date.parse(header.endsWith('GMT') ? header : `${header} GMT`);
  return Number.isNaN(date) ? undefined : date;
}

/** Two bytes for each character is what a string takes at most. */
function sizeOf(outcome: Outcome<unknown>, key: string): number {
  const { headers, body } = ((outcome.ok ? outcome.value : outcome.error) ?? {}) as {
    headers?: ResponseHeaders;
    body?: unknown;
  };
  const content = typeof body === 'string' ? body.length : (JSON.stringify(body)?.length ?? 0);
  return 2 * (key.length + content + JSON.stringify(headers ?? {}).length);
}
