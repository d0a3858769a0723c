import { randomUUID } from 'node:crypto';
import type { CallState } from './call-state.ts';
import { currentRequestContext, leastTimeout, TIMEOUT_HEADER } from './propagation.ts';

/**
 * The headers that a client sets itself beside those of its caller. A caller may set them too, as one that forwards a
 * request does: each is sent once all the same.
 */
export const PROPAGATED_HEADERS: ReadonlySet<string> = new Set([
  'x-request-id',
  'x-service-name',
  'traceparent',
  'tracestate',
  TIMEOUT_HEADER,
]);

/** What is sent of a call's headers, and what becomes of its time limit. */
export interface SentHeaders {
  /** Names and values in turn, without the time limit. */
  readonly headers: readonly string[];
  /** Milliseconds that the caller's own `X-Request-Timeout` leaves; undefined where it has none. */
  readonly timeout: number | undefined;
}

/** Puts together the headers of a caller, some of which the client would set, too, and those of the client. */
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
  return { headers, timeout: leastTimeout(given.get(TIMEOUT_HEADER)) };
}

/**
 * What is sent under a name that both may set: the caller's value, or the lesser time limit.
 *
 * @param elapsed milliseconds that have passed since the caller said its time limit
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
    const limit = leastTimeout(own);
    const left = limit === undefined ? [] : [String(Math.max(1, Math.floor(limit - elapsed)))];
    const least = leastTimeout(set === undefined ? left : [...left, set]);
    return least === undefined ? [] : [String(least)];
  }
  if (own !== undefined) return name === 'tracestate' ? own : own.slice(0, 1);
  // W3C Trace Context, section 3.3: a state belongs to its own parent.
  const foreign = name === 'tracestate' && given.has('traceparent');
  return set === undefined || foreign ? [] : [set];
}

export function* pairsOf(headers: readonly string[]): Generator<[name: string, value: string]> {
  for (let index = 0; index < headers.length; index += 2) yield [headers[index]!, headers[index + 1]!];
}

/** The headers that go with every call, as names and values in turn. */
export function propagatedHeaders(callerName: string | undefined): string[] {
  const incoming = currentRequestContext();
  const requestId = incoming?.requestId ?? randomUUID();
  // Lists that are pushed to grow by more than they need.
  const headers =
    callerName === undefined
      ? ['x-request-id', requestId]
      : ['x-request-id', requestId, 'x-service-name', callerName];
  if (incoming?.traceparent !== undefined) headers.push('traceparent', incoming.traceparent);
  if (incoming?.tracestate !== undefined) headers.push('tracestate', incoming.tracestate);
  return headers;
}

/** The headers of a call as they are sent: with the time that is left for it, if that is bounded. */
export function headersToSend(
  { headers, expiresAt }: Pick<CallState, 'headers' | 'expiresAt'>,
  deadline: number,
  now: number,
): string[] {
  // A call that is shared, or that nobody waits for, has another deadline than the caller that began it.
  const until = expiresAt > now ? Math.min(deadline, expiresAt) : deadline;
  if (until === Infinity) return headers as string[];
  const left = String(Math.max(1, Math.floor(until - now)));
  return headers.concat(TIMEOUT_HEADER, left);
}
