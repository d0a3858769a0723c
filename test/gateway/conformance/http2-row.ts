import { DATA, END_HEADERS, END_STREAM, encode, type Field, frame, HEADERS } from './http2-frames.ts';
import { received } from './row.ts';

/** The result of a stream: its status, or the error with which the stream or the connection ends. */
export interface Http2Outcome {
  readonly result: number | string;
  readonly bytes: string;
}

/** The frames are those of stream 1. */
export type Http2Row = readonly [name: string, frames: readonly Buffer[], outcome: Http2Outcome];

export const RESET: Http2Outcome = { result: 'PROTOCOL_ERROR', bytes: '' };
/** nghttp2 drops a malformed field, and takes the rest. */
export const DROPPED = forwarded('GET /a');
export const BAD: Http2Outcome = { result: 400, bytes: '' };

export function rejected(result: number | string): Http2Outcome {
  return { result, bytes: '' };
}

export function forwarded(line: string, options: Parameters<typeof received>[1] = {}): Http2Outcome {
  return { result: 200, bytes: received(line, { version: '2.0', ...options }) };
}

interface Pseudo {
  method?: string;
  path?: string;
  authority?: string;
}

/** Gives the fields of a request. */
export function fields(
  { method = 'GET', path = '/a', authority = 'shop.example' }: Pseudo,
  more: readonly Field[],
): Field[] {
  return [[':method', method], [':scheme', 'http'], [':authority', authority], [':path', path], ...more];
}

/** Writes the frame of a head. */
export function head(all: readonly Field[], flags = END_STREAM): Buffer[] {
  return [frame(HEADERS, END_HEADERS | flags, 1, encode(all))];
}

/** Writes a request that ends with its head. */
export function request(more: readonly Field[] = [], pseudo: Pseudo = {}): Buffer[] {
  return head(fields(pseudo, more));
}

/** Writes a POST with a body. */
export function post(more: readonly Field[], body: string): Buffer[] {
  return [...head(fields({ method: 'POST' }, more), 0), frame(DATA, END_STREAM, 1, body)];
}

/** The body of one byte, for which the client gave no length. */
export const CHUNKED = received('POST /a', {
  version: '2.0',
  body: `transfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n`,
});
