import type { ServerResponse } from 'node:http';
import type { ServerHttp2Stream } from 'node:http2';
import type { ResponseHeaders } from '../../client/response.ts';

/** A response of node:http, or of node:http2, whose compatibility layer has the same methods. */
export type ClientResponse = ServerResponse & { readonly stream?: ServerHttp2Stream | undefined };

/** Writes the head of a response. @param headers names and values in turn */
export function writeHead(response: ClientResponse, status: number, headers: string[]): void {
  if (response.stream === undefined) response.writeHead(status, headers);
  else response.writeHead(status, groupByName(headers));
}

/** Some versions of Node lose a header of HTTP/2 that comes twice in a list. */
function groupByName(headers: readonly string[]): Record<string, string | string[]> {
  const grouped: Record<string, string | string[]> = Object.create(null);
  for (let index = 0; index < headers.length; index += 2) {
    const name = headers[index]!;
    const earlier = grouped[name];
    const value = headers[index + 1]!;
    grouped[name] = earlier === undefined ? value : [earlier, value].flat();
  }
  return grouped;
}

/** Sends `103 Early Hints`. Hints that Node takes for malformed are dropped. */
export function writeEarlyHints(response: ClientResponse, { link }: ResponseHeaders): void {
  if (link === undefined || response.req.httpVersion === '1.0') return;
  try {
    response.writeEarlyHints({ link });
  } catch {
    // They were for speed only.
  }
}

/** Breaks the response off, so that the client does not take it for complete. */
export function breakOff(response: ClientResponse): void {
  const { stream } = response;
  if (stream === undefined) response.destroy();
  else if (!stream.closed) stream.close(INTERNAL_ERROR);
}

/** Tells a client that still sends that nobody reads its body any more: RFC 9113, section 8.1. */
export function stopUpload({ stream }: ClientResponse): void {
  if (stream === undefined || stream.closed || stream.endAfterHeaders || stream.readableEnded) return;
  stream.close(NO_ERROR);
}

/** Error codes of HTTP/2: RFC 9113, section 7. */
const NO_ERROR = 0;
const INTERNAL_ERROR = 2;

/** Headers of a response that are set before the gateway handles its request, as by hooks of Fastify. */
export type OwnHeaders = Readonly<Record<string, string | number | string[] | undefined>>;
