import type { LocalResponse } from '../guard/local-response.ts';
import type { Fingerprint } from './body-hash.ts';

/** A handler's response, as it went to the client. */
export interface HandlerResponse {
  readonly status: number;
  /** The headers by lower-case names. */
  readonly headers: Readonly<Record<string, string | number | readonly string[] | undefined>>;
  readonly body: Uint8Array;
}

export interface StoredResponse {
  readonly response: LocalResponse & { readonly body: Uint8Array };
  readonly fingerprint: Fingerprint;
}

/**
 * Headers that belong to the connection or to one message, or to one client alone: a cookie may be
 * a session.
 */
const NOT_STORED: ReadonlySet<string> = new Set([
  'connection',
  'content-length',
  'date',
  'keep-alive',
  'proxy-authenticate',
  'set-cookie',
  'trailer',
  'transfer-encoding',
  'upgrade',
]);

/**
 * Statuses below 500 that ask the client to retry, perhaps with other credentials, or, as 499, say
 * that it has gone: the request may still be handled.
 */
const PROVISIONAL: ReadonlySet<number> = new Set([401, 403, 407, 408, 425, 429, 499]);

/** Whether a response settles its request: a failed request may be retried. */
export function isFinal(status: number): boolean {
  return status < 500 && !PROVISIONAL.has(status);
}

/** Writes a response for the store, without the headers that are not stored. */
export function encodeResponse({ status, headers, body }: HandlerResponse, fingerprint: Fingerprint): string {
  const stored = Object.entries(headers)
    .filter(([name, value]) => value !== undefined && !NOT_STORED.has(name.toLowerCase()))
    .map(([name, value]) => [name.toLowerCase(), Array.isArray(value) ? value.map(String) : String(value)]);
  return JSON.stringify({
    status,
    headers: Object.fromEntries(stored),
    body: Buffer.from(body.buffer, body.byteOffset, body.byteLength).toString('base64'),
    fingerprint,
  });
}

/**
 * Reads a text that encodeResponse wrote.
 *
 * @throws TypeError or SyntaxError if it is anything else: others may write to the store
 */
export function decodeResponse(text: string): StoredResponse {
  const { status, headers, body, fingerprint } = JSON.parse(text);
  const { digest, bytes, complete } = fingerprint;
  const wellFormed =
    Number.isInteger(status) &&
    status >= 200 &&
    status < 500 &&
    Object.entries(headers).every(isHeader) &&
    typeof body === 'string' &&
    typeof digest === 'string' &&
    Number.isInteger(bytes) &&
    typeof complete === 'boolean';
  if (!wellFormed) throw new TypeError('the text that is stored under the idempotency key is not a response');
  return {
    response: { status, headers, body: Buffer.from(body, 'base64') },
    fingerprint: { digest, bytes, complete },
  };
}

/** Marks a stored response, which is sent again. */
export function toReplay(response: LocalResponse): LocalResponse {
  return { ...response, headers: { ...response.headers, 'idempotent-replayed': 'true' } };
}

const NAME = /^[!#$%&'*+.^_`|~\da-z-]+$/;
const VALUE = /^[\t\x20-\x7e\x80-\xff]*$/;

function isHeader([name, value]: [string, unknown]): boolean {
  const values = [value].flat();
  return (
    NAME.test(name) &&
    !NOT_STORED.has(name) &&
    values.every((item) => typeof item === 'string' && VALUE.test(item))
  );
}
