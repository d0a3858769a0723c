import { randomBytes, randomUUID } from 'node:crypto';
import type { IncomingHttpHeaders } from 'node:http';
import { contextFrom, type RequestContext } from '../../client/propagation.ts';

const TRACE_AND_PARENT = /^..-(.{32})-(.{16})-/;

/**
 * Gives the context of the calls of a request. A trusted proxy is believed its request id and its
 * trace. A stranger's request begins a trace of its own, which names the stranger's in `tracestate`
 * (W3C Trace Context, section 3.3), so that a service can link the two: its trace id could else
 * join the traces of others. Its time limit counts: a client can only shorten its own wait.
 */
export function createContext(headers: IncomingHttpHeaders, trusted: boolean): RequestContext {
  if (trusted) return contextFrom(headers);
  const { traceparent, 'x-request-timeout': timeout } = headers;
  if (traceparent === undefined && timeout === undefined)
    return { requestId: randomUUID(), deadline: Infinity };
  const given = contextFrom({ traceparent, 'x-request-timeout': timeout });
  return { ...given, ...restartTrace(given.traceparent) };
}

function restartTrace(parent: string | undefined): Partial<RequestContext> {
  const [, trace, span] = TRACE_AND_PARENT.exec(parent ?? '') ?? [];
  if (trace === undefined) return {};
  const ids = randomBytes(24).toString('hex');
  return {
    traceparent: `00-${ids.slice(0, 32)}-${ids.slice(32)}-00`,
    tracestate: `holdfast=link:${trace}-${span}`,
  };
}
