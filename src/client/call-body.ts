import { Readable } from 'node:stream';
import { isNativeError } from 'node:util/types';
import type { Dispatcher } from 'undici';
import { InvalidRequestError } from '../errors.ts';
import { isThenable } from '../internal/decision.ts';
import { shown } from '../internal/shown.ts';
import { isPlain } from '../internal/validate.ts';
import { indexOfHeader } from './header-list.ts';

/** A body in the terms of undici. */
export type PreparedBody = Exclude<Dispatcher.DispatchOptions['body'], undefined>;

/**
 * Names the classes that JSON.stringify makes `{}` of, whatever they hold. The names stand in for
 * the classes, since a mention of Headers makes Node load its fetch.
 */
const UNSENDABLE: ReadonlySet<unknown> = new Set([
  'Blob',
  'File',
  'FormData',
  'Headers',
  'Map',
  'Set',
  'WeakMap',
  'WeakSet',
  'Request',
  'Response',
  'WeakRef',
]);

/**
 * Gives the body of a call as it is sent. Its type goes into the headers, unless they name one.
 *
 * @throws InvalidRequestError for a body that would be lost
 */
export function prepareBody(body: unknown, headers: string[]): PreparedBody {
  if (body === undefined || body === null) return null;
  const typed = indexOfHeader(headers, 'content-type') !== -1;
  if (typeof body === 'string') {
    if (!typed && isJson(body)) headers.push('content-type', 'application/json');
    return body;
  }
  if (body instanceof Uint8Array || body instanceof Readable) return body;
  if (body instanceof ArrayBuffer) return new Uint8Array(body);
  if (ArrayBuffer.isView(body)) return new Uint8Array(body.buffer, body.byteOffset, body.byteLength);
  if (body instanceof URLSearchParams) {
    if (!typed) headers.push('content-type', 'application/x-www-form-urlencoded;charset=UTF-8');
    return body.toString();
  }
  if (UNSENDABLE.has((body as { [Symbol.toStringTag]?: unknown })[Symbol.toStringTag]))
    throw createEmptyBodyError(body);
  if (isThenable(body))
    throw new InvalidRequestError('the body of a call must not be a promise: await it before');
  if (isNativeError(body) && !('toJSON' in body)) throw createEmptyBodyError(body);
  if (isSource(body)) return Readable.from(body, { objectMode: false });
  if (!typed) headers.push('content-type', 'application/json');
  return toJson(body);
}

function createEmptyBodyError(body: object): InvalidRequestError {
  return new InvalidRequestError(
    `${shown(body)} would be sent as the JSON of an empty object: give its content as bytes, a stream, a plain ` +
      'object or a list, or have it say by toJSON() what is to be sent',
  );
}

/**
 * Whether a text is the JSON of an object or a list. The first and the last character tell of most
 * texts that they are not.
 */
function isJson(text: string): boolean {
  const ends = `${text.trimStart().at(0)}${text.trimEnd().at(-1)}`;
  if (ends !== '{}' && ends !== '[]') return false;
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
}

/** Whether a body gives its content piece by piece, which its JSON would not hold. */
function isSource(body: unknown): body is Iterable<string | Uint8Array> | AsyncIterable<string | Uint8Array> {
  if (typeof body !== 'object' || body === null) return false;
  if (Symbol.asyncIterator in body) return true;
  if (!(Symbol.iterator in body) || Array.isArray(body) || body instanceof String || 'toJSON' in body)
    return false;
  return Object.keys(body).length === 0;
}

function toJson(body: unknown): string {
  let json: string | undefined;
  try {
    json = JSON.stringify(body);
  } catch (cause) {
    // V8's message about an object that holds itself names the properties of that object.
    if (cause instanceof TypeError && /circular/i.test(cause.message))
      // biome-ignore lint/style/useErrorCause: it would show a part of the body
      throw new InvalidRequestError('the body cannot be written as JSON: it holds itself');
    throw new InvalidRequestError('the body cannot be written as JSON', { cause });
  }
  if (json === undefined)
    throw new InvalidRequestError(`a body of type ${typeof body} cannot be written as JSON`);
  if (typeof body === 'number' && json === 'null')
    throw new InvalidRequestError(`a body of ${body} would be sent as null, since JSON has no such number`);
  if (json === '{}' && !isPlain(body as object) && Object.keys(body as object).length === 0)
    throw createEmptyBodyError(body as object);
  return json;
}
