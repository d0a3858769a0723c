import type { ReadyAnswer } from '../guard/local-response.ts';
import type { Fingerprint } from './body-hash.ts';

/** The answer of a handler, as it went to the client. */
export interface GivenAnswer {
  readonly status: number;
  /** By lower-case names. */
  readonly headers: Readonly<Record<string, string | number | readonly string[] | undefined>>;
  readonly body: Uint8Array;
}

export interface StoredAnswer {
  readonly answer: ReadyAnswer;
  readonly fingerprint: Fingerprint;
}

/** Those that belong to the connection or to one message, or that are no one else's: a cookie may be a session. */
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

/** Answers below 500 that ask to come again, perhaps with other credentials: they settle nothing. */
const PROVISIONAL: ReadonlySet<number> = new Set([401, 403, 407, 408, 425, 429]);

/** Whether an answer is the final word on a request: what failed may be tried again. */
export function isFinal(status: number): boolean {
  return status < 500 && !PROVISIONAL.has(status);
}

export function encodeAnswer({ status, headers, body }: GivenAnswer, fingerprint: Fingerprint): string {
  const kept = Object.entries(headers)
    .filter(([name, value]) => value !== undefined && !NOT_STORED.has(name.toLowerCase()))
    .map(([name, value]) => [name.toLowerCase(), Array.isArray(value) ? value.map(String) : String(value)]);
  return JSON.stringify({
    status,
    headers: Object.fromEntries(kept),
    body: Buffer.from(body.buffer, body.byteOffset, body.byteLength).toString('base64'),
    fingerprint,
  });
}

/** @throws TypeError or SyntaxError if it is nothing that encodeAnswer gives: stores can be written by others. */
export function decodeAnswer(text: string): StoredAnswer {
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
  if (!wellFormed) throw new TypeError('what is stored under the idempotency key is not an answer');
  return {
    answer: {
      status,
      headers: { ...headers, 'idempotent-replayed': 'true' },
      body: Buffer.from(body, 'base64'),
    },
    fingerprint: { digest, bytes, complete },
  };
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
