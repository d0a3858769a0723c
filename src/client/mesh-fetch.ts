import { Readable } from 'node:stream';
import { InvalidRequestError, ServiceConnectionError } from '../errors.ts';
import { shown } from '../internal/shown.ts';
import { isFunction, validateOptions } from '../internal/validate.ts';
import type { CallEngine, EngineHandle } from './call-engine.ts';
import { checkOptions, warnOfNearMisses } from './call-options.ts';
import { followRedirect, readLocation } from './fetch-redirect.ts';
import { type FetchRequest, isRequest, prepareInit, prepareRequest, toOwnRequest } from './fetch-request.ts';
import { FetchedResponse } from './fetched-response.ts';
import { MESH_CHECKS, type MeshOptions, MeshTargets, RENAMED_MESH_OPTIONS } from './mesh-target.ts';
import { parseTimeout, TIMEOUT_HEADER } from './propagation.ts';
import { relay } from './relay.ts';
import type { RelayRequest } from './relay-request.ts';
import { asError } from './service-errors.ts';
import type { ServicePolicies } from './service-policies.ts';

export interface MeshFetchOptions extends MeshOptions {
  /** Takes the requests to hosts that are no service of the mesh. Default: the global `fetch`. */
  passthrough?: typeof fetch | undefined;
}

/** The options of a request: those of `fetch`, and those of a call. */
export type MeshRequestInit = RequestInit &
  Pick<RelayRequest, 'timeout' | 'retries' | 'idempotencyKey' | 'hashKey' | 'select'>;

/** The key under which an adapter of another client adds to a request, and nobody else can. */
export const ADAPTED = Symbol('adapted');

/** The part of a request that an adapter of another client adds. */
export interface Adapted {
  [ADAPTED]?:
    | {
        /**
         * Milliseconds after which the caller gives up: the lesser of it and the timeout of the call is
         * the deadline.
         */
        readonly timeLimit: number | undefined;
        /** Whether an encoded body is decoded. */
        readonly decode: boolean;
      }
    | undefined;
}

/** A `fetch` as the global one, for services of the mesh too. */
export interface MeshFetch {
  (input: string | URL | Request, init?: MeshRequestInit): Promise<Response>;
  /**
   * Closes the client if it was made for this fetch, and waits for the calls under way; otherwise
   * it does nothing.
   */
  close(): Promise<void>;
}

/** The part of a fetch that stays the same through all redirects. */
interface FetchContext {
  readonly engine: CallEngine;
  readonly targets: MeshTargets;
  readonly service: string;
  readonly init: MeshRequestInit & Adapted;
  readonly signal: AbortSignal | undefined;
  /** Kept, since the signal of a Request is aborted only as long as the Request is reachable. */
  readonly input: string | URL | Request;
  readonly redirect: Request['redirect'];
  /** The milliseconds that the request has, if it says. */
  readonly timeout: number | undefined;
  /** When they are over, on the clock of the client; Infinity without a timeout. */
  readonly deadline: number;
  /**
   * When the request was made, on the clock of the client: the `X-Request-Timeout` of its headers counts
   * from there.
   */
  readonly startedAt: number;
  readonly rules: FetchRules;
}

/** The rules by which an adapter's fetch departs from the standard. */
export interface FetchRules {
  /** The name of the adapter in errors. */
  readonly owner: string;
  /** Whether a GET or HEAD may have a body, as with Node's own client. */
  readonly allowGetBody: boolean;
}

const STANDARD: FetchRules = { owner: 'createFetch()', allowGetBody: false };

/**
 * Creates a `fetch` over a client.
 *
 * @throws TypeError naming the option that is not allowed
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
    const times = readTimes(init, signal, engine.policiesOf(service));
    const request = isRequest(input) ? new Request(toOwnRequest(input), init) : undefined;
    const redirect = request?.redirect ?? init.redirect ?? 'follow';
    const context = { engine, targets, service, init, signal, input, redirect, rules, ...times };
    let sent: FetchRequest;
    try {
      sent = await (request === undefined
        ? prepareInit(url, init, rules.allowGetBody)
        : prepareRequest(url, request, signal));
    } catch (error) {
      throw toFetchError(signal, 'fetch failed', error);
    }
    if (signal?.aborted) {
      if (sent.body instanceof Readable) sent.body.on('error', () => {}).destroy(asError(signal.reason));
      throw signal.reason;
    }
    return await sendForCaller(context, sent);
  };
  return Object.assign(fetch, { close });
}

/** Gives the URL to fetch, and the service that it means, if it means one of the mesh. */
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

/** @throws TypeError naming the option that is not allowed */
function readTimes(
  init: MeshRequestInit & Adapted,
  signal: AbortSignal | undefined,
  { timeout: usual, clock }: Pick<ServicePolicies, 'timeout' | 'clock'>,
): Pick<FetchContext, 'timeout' | 'deadline' | 'startedAt'> {
  const { retries, hashKey, select } = init;
  try {
    checkOptions({ timeout: init.timeout, retries, hashKey, select, signal });
  } catch (cause) {
    throw new TypeError((cause as Error).message, { cause });
  }
  const timeout = timeoutOf(init, usual);
  const startedAt = clock.now();
  return { timeout, startedAt, deadline: timeout === undefined ? Infinity : startedAt + timeout };
}

/** Sends a request. The stack of an error names the functions that await the fetch, as elsewhere. */
async function sendForCaller(context: FetchContext, sent: FetchRequest): Promise<Response> {
  try {
    return await send(context, sent);
  } catch (error) {
    if (error instanceof TypeError) Error.captureStackTrace(error);
    throw error;
  }
}

function send(context: FetchContext, sent: FetchRequest): Promise<Response> {
  const { engine, service, init, signal, redirect } = context;
  const { url, method, body } = sent;
  const headers = withTimeLeft(sent.headers, context);
  const { retries, idempotencyKey, hashKey, select } = init;
  const timeout = sent.redirects === 0 ? context.timeout : timeLeft(context);
  const path = (url.pathname || '/') + url.search;
  // Nothing in it leads to the promise: the reader of the body may outlive the Response.
  const bodyError = (error: unknown) => toFetchError(context.signal, 'terminated', error);
  const origin = { url: withoutFragment(url), redirected: sent.redirects > 0 };
  return new Promise((resolve, reject) => {
    const handler = new FetchedResponse(method === 'HEAD', origin, bodyError, {
      accepts: (status, headers, instance) => {
        const location = redirect === 'manual' ? undefined : readLocation(status, headers);
        if (location === undefined) return true;
        try {
          const next = followRedirect(sent, { status, location, instance }, context);
          // A small body of the redirect is read to its end meanwhile, a large one is cut off.
          resolve(send(context, next));
        } catch (error) {
          reject(toFetchError(signal, 'fetch failed', error));
        }
        return false;
      },
      maxDecoded: () =>
        init[ADAPTED]?.decode === false ? undefined : engine.policiesOf(service).maxResponseSize,
      resolve,
      reject: (error) => reject(toFetchError(signal, 'fetch failed', error)),
    });
    relay(
      engine,
      { service, method, path, headers, body, signal, timeout, retries, idempotencyKey, hashKey, select },
      handler,
    );
  });
}

/**
 * Gives the error that the caller gets for another: the reason, if the caller has given up itself.
 */
function toFetchError(signal: AbortSignal | undefined, message: string, error: unknown): unknown {
  if (signal?.aborted) return signal.reason;
  return error instanceof TypeError ? error : new TypeError(message, { cause: toNetworkError(error) });
}

/**
 * Gives an error with the code of the network, such as ECONNREFUSED, which users of a fetch look for in
 * its `cause`. The error of the connection is the cause of it in turn.
 */
function toNetworkError(error: unknown): unknown {
  if (!(error instanceof ServiceConnectionError)) return error;
  const { code } = (error.cause ?? {}) as NodeJS.ErrnoException;
  return code === undefined ? error : Object.assign(new Error(error.message, { cause: error }), { code });
}

/** Names the URL in an error, without the query and the password, which no log must have. */
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

function timeLeft({ deadline, engine }: FetchContext): number | undefined {
  return deadline === Infinity ? undefined : Math.max(1, Math.ceil(deadline - engine.clock.now()));
}

/**
 * Lessens a time limit among the headers by the time that has passed: it holds for the whole
 * request, its redirects and the wait for its body included.
 */
function withTimeLeft(
  headers: ReadonlyMap<string, string>,
  { startedAt, engine }: FetchContext,
): ReadonlyMap<string, string> {
  const limit = parseTimeout(headers.get(TIMEOUT_HEADER));
  if (limit === undefined) return headers;
  const left = Math.max(0, Math.floor(limit - (engine.clock.now() - startedAt)));
  return new Map(headers).set(TIMEOUT_HEADER, String(left));
}

function withoutFragment({ href, hash }: URL): string {
  return hash === '' ? href : href.slice(0, -hash.length);
}
