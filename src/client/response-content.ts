import { ResponseInvalidError, ServiceResponseError } from '../errors.ts';
import { areRetriesSpent, spentRetries } from '../policies/spent-retries.ts';
import type { BufferedResponse } from './buffered-response.ts';
import type { CallState } from './call-state.ts';
import { RETRIES_SPENT_HEADER } from './propagation.ts';
import type { ResponseHead, ResponseHeaders } from './response.ts';

/**
 * Parses the body of a response of 2xx.
 *
 * @throws ServiceResponseError for a response of any other status
 * @throws ResponseInvalidError for a body that cannot be parsed
 */
export function parseContent(call: CallState, response: BufferedResponse): unknown {
  const { status, headers, instanceId, body } = response;
  const text = textOf(response);
  if (status < 200 || status > 299) throw toResponseError(call, response, text);
  if (text === undefined) {
    throw new ResponseInvalidError(
      'responded with a body that is neither JSON nor UTF-8 text: request() gives the bytes',
      { serviceName: call.service, instanceId },
    );
  }
  if (body === '') return undefined;
  if (!isJson(headers)) return body;
  try {
    return JSON.parse(body);
  } catch (cause) {
    throw new ResponseInvalidError('responded with a body that is not JSON', {
      serviceName: call.service,
      instanceId,
      cause,
    });
  }
}

/**
 * Makes a response into an error.
 *
 * @param text the body, if it is here and is text
 */
export function toResponseError(
  call: CallState,
  response: ResponseHead,
  text: string | undefined,
): ServiceResponseError {
  const { status, headers, instanceId } = response;
  const error = new ServiceResponseError(`responded with ${status}`, {
    serviceName: call.service,
    instanceId,
    status,
    headers,
    body: text !== undefined && isJson(headers) ? parseOrKeep(text) : text,
  });
  if (areRetriesSpent(response) || headers[RETRIES_SPENT_HEADER] !== undefined) {
    spentRetries.mark(error);
  }
  return error;
}

/**
 * Gives the body as text; undefined if it is not text in UTF-8. JSON is in UTF-8 whatever its type
 * says: RFC 8259, section 8.1.
 */
export function textOf({ headers, body, binary }: BufferedResponse): string | undefined {
  if (binary) return undefined;
  const type = headers['content-type'];
  if (body === '' || typeof type !== 'string' || isJson(headers)) return body;
  const charset = /;\s*charset\s*=\s*"?([^\s";]+)/i.exec(type)?.[1];
  if (charset === undefined || /^utf-?8$/i.test(charset)) return body;
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are ASCII, too
  return ASCII_COMPATIBLE.test(charset) && /^[\x00-\x7f]*$/.test(body) ? body : undefined;
}

/** The charsets that have ASCII's bytes for its characters. */
const ASCII_COMPATIBLE = /^(?:us-ascii|ascii|iso-?8859-\d+|latin-?\d+|windows-125\d|cp125\d)$/i;

function isJson(headers: ResponseHeaders): boolean {
  const type = headers['content-type'];
  return typeof type === 'string' && /^application\/(?:[\w.+-]+\+)?json\b/i.test(type);
}

/** Parses JSON, or keeps a text that is none: the text says more than an error would. */
function parseOrKeep(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}
