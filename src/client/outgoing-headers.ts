import { randomUUID } from 'node:crypto';
import type { CallState } from './call-state.ts';
import { parseTimeout, type RequestContext, TIMEOUT_HEADER } from './propagation.ts';

/**
 * The headers that a client sets itself, beside those of its caller. A caller may set them too, for
 * example when it forwards a request: each is sent once all the same.
 */
export const PROPAGATED_HEADERS: ReadonlySet<string> = new Set([
  'x-request-id',
  'x-service-name',
  'traceparent',
  'tracestate',
  TIMEOUT_HEADER,
]);

/** The headers of a call as they are sent, and its time limit apart. */
export interface SentHeaders {
  /** Names and values in turn, without the time limit. */
  readonly headers: readonly string[];
  /** The milliseconds of the caller's own `X-Request-Timeout`; undefined where it set none. */
  readonly timeout: number | undefined;
}

/** Merges the headers of a caller with those of the client, where both may set the same ones. */
export function mergeHeaders(own: readonly string[], propagated: readonly string[]): SentHeaders {
  const headers: string[] = [];
  const given = new Map<string, string[]>();
  for (const [name, value] of pairsOf(own)) {
    if (!PROPAGATED_HEADERS.has(name)) headers.push(name, value);
    else if (given.has(name)) given.get(name)!.push(value);
    else given.set(name, [value]);
  }
  const ours = new Map(pairsOf(propagated));
  for (const name of PROPAGATED_HEADERS) {
    if (name === TIMEOUT_HEADER) continue;
    for (const value of valuesToSend(name, given, ours)) headers.push(name, value);
  }
  return { headers, timeout: parseTimeout(given.get(TIMEOUT_HEADER)) };
}

/**
 * Gives the values to send of a header that both may set: the caller's, or the lesser time limit.
 *
 * @param elapsed milliseconds since the caller set its time limit
 */
export function valuesToSend(
  name: string,
  given: ReadonlyMap<string, readonly string[]>,
  ours: ReadonlyMap<string, string>,
  elapsed = 0,
): readonly string[] {
  const own = given.get(name);
  const set = ours.get(name);
  if (name === TIMEOUT_HEADER) {
    const limit = parseTimeout(own);
    const left = limit === undefined ? [] : [String(Math.max(1, Math.floor(limit - elapsed)))];
    const least = parseTimeout(set === undefined ? left : [...left, set]);
    return least === undefined ? [] : [String(least)];
  }
  if (own !== undefined) return name === 'tracestate' ? own : own.slice(0, 1);
  // W3C Trace Context, section 3.3: a state belongs to its own parent.
  const hasOtherParent = name === 'tracestate' && given.has('traceparent');
  return set === undefined || hasOtherParent ? [] : [set];
}

/** Yields the pairs of a list of names and values in turn. */
export function* pairsOf(headers: readonly string[]): Generator<[name: string, value: string]> {
  for (let index = 0; index < headers.length; index += 2) yield [headers[index]!, headers[index + 1]!];
}

/** Creates the headers that go with every call, as names and values in turn. */
export function createPropagatedHeaders(
  callerName: string | undefined,
  incoming: RequestContext | undefined,
): string[] {
  const requestId = incoming?.requestId ?? randomUUID();
  // Written as literals, since a list that is pushed to grows by more than it needs.
  const headers =
    callerName === undefined
      ? ['x-request-id', requestId]
      : ['x-request-id', requestId, 'x-service-name', callerName];
  if (incoming?.traceparent !== undefined) headers.push('traceparent', incoming.traceparent);
  if (incoming?.tracestate !== undefined) headers.push('tracestate', incoming.tracestate);
  return headers;
}

/** Gives the headers of a call as they are sent: with the time left for it, if that is bounded. */
export function headersToSend(
  { headers, expiresAt }: Pick<CallState, 'headers' | 'expiresAt'>,
  deadline: number,
  now: number,
): string[] {
  // A call that is shared, or that nobody waits for, has another deadline than its first caller.
  const until = expiresAt > now ? Math.min(deadline, expiresAt) : deadline;
  if (until === Infinity) return headers as string[];
  const left = String(Math.max(1, Math.floor(until - now)));
  // Several times as fast as `concat` with single values.
  return [...headers, TIMEOUT_HEADER, left];
}
