import { Readable } from 'node:stream';
import { InvalidRequestError } from '../errors.ts';
import { shown } from '../internal/shown.ts';
import { isFunction, validateOptions } from '../internal/validate.ts';
import type { CallEngine, EngineHandle } from './call-engine.ts';
import { checkOptions, warnOfNearMisses } from './call-options.ts';
import { followRedirect, readLocation } from './fetch-redirect.ts';
import { type FetchRequest, isRequest, prepareInit, prepareRequest, toOwnRequest } from './fetch-request.ts';
import { FetchedResponse } from './fetched-response.ts';
import { MESH_CHECKS, type MeshOptions, MeshTargets, RENAMED_MESH_OPTIONS } from './mesh-target.ts';
import { leastTimeout, TIMEOUT_HEADER } from './propagation.ts';
import { relay } from './relay.ts';
import type { RelayRequest } from './relay-request.ts';
import { asError } from './service-errors.ts';

export interface MeshFetchOptions extends MeshOptions {
  /** Takes the requests to hosts that are no service of the mesh. Default: the global `fetch`. */
  passthrough?: typeof fetch;
}

/** What a request can be given besides what `fetch` knows. */
export type MeshRequestInit = RequestInit &
  Pick<RelayRequest, 'timeout' | 'retries' | 'idempotencyKey' | 'hashKey' | 'select'>;

/** Where an adapter of another client says what it adds to a request: nobody else can. */
export const ADAPTED = Symbol('adapted');

/** What an adapter of another client adds to a request. */
export interface Adapted {
  [ADAPTED]?: {
    /** Milliseconds after which the caller gives up: the lesser of it and the timeout of the call is the deadline. */
    readonly timeLimit: number | undefined;
    /** Whether a body that is encoded is decoded. */
    readonly decode: boolean;
  };
}

/** As the global `fetch`, for services of the mesh too. */
export interface MeshFetch {
  (input: string | URL | Request, init?: MeshRequestInit): Promise<Response>;
  /** Closes the client if it was made for this, which waits for the calls under way; else it does nothing. */
  close(): Promise<void>;
}

/** What stays the same through all redirects. */
interface Fetching {
  readonly engine: CallEngine;
  readonly targets: MeshTargets;
  readonly service: string;
  readonly init: MeshRequestInit & Adapted;
  readonly signal: AbortSignal | undefined;
  /** Kept, since the signal of a Request is only aborted for as long as there is the Request. */
  readonly input: string | URL | Request;
  readonly redirect: Request['redirect'];
  /** Milliseconds that the request has, if it says. */
  readonly timeout: number | undefined;
  /** When they are over. */
  readonly deadline: number;
  /** `performance.now()` when it was made: the `X-Request-Timeout` of its headers counts from there. */
  readonly startedAt: number;
  readonly rules: FetchRules;
}

/** What makes the fetch, and where that differs from what the standard says. */
export interface FetchRules {
  /** As errors name it. */
  readonly owner: string;
  /** Whether a GET or HEAD may have a body, as with Node's own client. */
  readonly bodyWithAny: boolean;
}

const STANDARD: FetchRules = { owner: 'createFetch()', bodyWithAny: false };

/**
 * A `fetch` over a client.
 *
 * @throws TypeError naming the option that is not what it must be.
 */
export function createMeshFetch(
  { engine, close }: EngineHandle,
  options: MeshFetchOptions = {},
  rules: FetchRules = STANDARD,
): MeshFetch {
  const { owner } = rules;
  validateOptions(owner, options, { ...MESH_CHECKS, passthrough: isFunction }, RENAMED_MESH_OPTIONS);
  const { passthrough, route, strict } = options;
  const targets = new MeshTargets(owner, { route, strict });

  const fetch = async (input: string | URL | Request, given?: MeshRequestInit): Promise<Response> => {
    const { url, service } = resolveTarget(input, targets);
    if (service === undefined) {
      const nearMiss = targets.nearMissOf(url);
      if (nearMiss !== undefined) engine.notePassthrough(nearMiss);
      return (passthrough ?? globalThis.fetch)(input as string, given);
    }
    const init = given ?? {};
    warnOfNearMisses(init);
    const signal = signalOf(input, init);
    const times = readTimes(init, signal, engine.policiesOf(service).timeout);
    const request = isRequest(input) ? new Request(toOwnRequest(input), init) : undefined;
    const redirect = request?.redirect ?? init.redirect ?? 'follow';
    const fetching = { engine, targets, service, init, signal, input, redirect, rules, ...times };
    let sent: FetchRequest;
    try {
      sent = await (request === undefined
        ? prepareInit(url, init, rules.bodyWithAny)
        : prepareRequest(url, request, signal));
    } catch (error) {
      throw errorFor(signal, 'fetch failed', error);
    }
    if (signal?.aborted) {
      if (sent.body instanceof Readable) sent.body.on('error', () => {}).destroy(asError(signal.reason));
      throw signal.reason;
    }
    return send(fetching, sent);
  };
  return Object.assign(fetch, { close });
}

/** The URL that is to be fetched, and the service that it means, if it is one of the mesh. */
function resolveTarget(
  input: string | URL | Request,
  targets: MeshTargets,
): { url: URL; service: string | undefined } {
  try {
    const url = new URL(isRequest(input) ? input.url : input);
    return { url, service: targets.serviceOf(url) };
  } catch (error) {
    const invalid = (error as NodeJS.ErrnoException).code === 'ERR_INVALID_URL';
    const cause = invalid ? new InvalidRequestError('it is not a URL') : error;
    // biome-ignore lint/style/useErrorCause: the error of Node has the whole URL, with its query
    throw new TypeError(`cannot fetch ${nameOf(input)}: ${(cause as Error).message}`, { cause });
  }
}

function signalOf(input: string | URL | Request, { signal }: MeshRequestInit): AbortSignal | undefined {
  return (signal === undefined && isRequest(input) ? input.signal : signal) ?? undefined;
}

/** @throws TypeError naming the option that is not what it must be */
function readTimes(
  init: MeshRequestInit & Adapted,
  signal: AbortSignal | undefined,
  usual: number,
): Pick<Fetching, 'timeout' | 'deadline' | 'startedAt'> {
  const { retries, hashKey, select } = init;
  try {
    checkOptions({ timeout: init.timeout, retries, hashKey, select, signal });
  } catch (cause) {
    throw new TypeError((cause as Error).message, { cause });
  }
  const timeout = timeoutOf(init, usual);
  const startedAt = performance.now();
  return { timeout, startedAt, deadline: timeout === undefined ? Infinity : startedAt + timeout };
}

function send(fetching: Fetching, sent: FetchRequest): Promise<Response> {
  const { engine, service, init, signal, redirect } = fetching;
  const { url, method, body } = sent;
  const headers = withTimeLeft(sent.headers, fetching);
  const { retries, idempotencyKey, hashKey, select } = init;
  const timeout = sent.redirects === 0 ? fetching.timeout : timeLeft(fetching);
  const path = (url.pathname || '/') + url.search;
  // Apart from what leads to the promise: the answer's reader may outlive the Response.
  const bodyError = (error: unknown) => errorFor(fetching.signal, 'terminated', error);
  const origin = { url: withoutFragment(url), redirected: sent.redirects > 0 };
  return new Promise((resolve, reject) => {
    const handler = new FetchedResponse(method === 'HEAD', origin, bodyError, {
      wants: (head, instance) => {
        const location = redirect === 'manual' ? undefined : readLocation(head);
        if (location === undefined) return true;
        try {
          const next = followRedirect(sent, { status: head.status, location, instance }, fetching);
          // What is left of this answer is not wanted, and small as a rule.
          resolve(send(fetching, next));
        } catch (error) {
          reject(errorFor(signal, 'fetch failed', error));
        }
        return false;
      },
      maxDecoded: () =>
        init[ADAPTED]?.decode === false ? undefined : engine.policiesOf(service).maxResponseSize,
      resolve,
      reject: (error) => reject(errorFor(signal, 'fetch failed', error)),
    });
    relay(
      engine,
      { service, method, path, headers, body, signal, timeout, retries, idempotencyKey, hashKey, select },
      handler,
    );
  });
}

/** What the caller is told of an error: the reason, if it has given up itself. */
function errorFor(signal: AbortSignal | undefined, message: string, error: unknown): unknown {
  if (signal?.aborted) return signal.reason;
  return error instanceof TypeError ? error : new TypeError(message, { cause: error });
}

/** Without a query and a password, which no log must have. */
function nameOf(input: string | URL | Request): string {
  const url = isRequest(input) ? input.url : input instanceof URL ? input.href : shown(input);
  const [name] = url.split(/[?#]/, 1);
  return name!.replace(/\/\/[^/]*@/, '//').slice(0, 200);
}

function timeoutOf(
  { timeout, [ADAPTED]: adapted }: MeshRequestInit & Adapted,
  usual: number,
): number | undefined {
  const timeLimit = adapted?.timeLimit;
  return timeLimit === undefined || timeLimit >= (timeout ?? usual) ? timeout : timeLimit;
}

function timeLeft({ deadline }: Fetching): number | undefined {
  return deadline === Infinity ? undefined : Math.max(1, Math.ceil(deadline - performance.now()));
}

/** The headers of which a time limit holds for the whole request, its redirects and the wait for its body included. */
function withTimeLeft(
  headers: ReadonlyMap<string, string>,
  { startedAt }: Fetching,
): ReadonlyMap<string, string> {
  const limit = leastTimeout(headers.get(TIMEOUT_HEADER));
  if (limit === undefined) return headers;
  const left = Math.max(0, Math.floor(limit - (performance.now() - startedAt)));
  return new Map(headers).set(TIMEOUT_HEADER, String(left));
}

function withoutFragment({ href, hash }: URL): string {
  return hash === '' ? href : href.slice(0, -hash.length);
}
