import {
  InvalidRequestError,
  ResponseInvalidError,
  ResponseTooLargeError,
  ServiceConnectionError,
  type ServiceErrorDetails,
} from '../errors.ts';

type Instance = Pick<ServiceErrorDetails, 'serviceName' | 'instanceId'>;

export function asError(reason: unknown): Error {
  return reason instanceof Error ? reason : new Error('the call was cancelled', { cause: reason });
}

export function createTooLargeError(
  { serviceName, instanceId }: Instance,
  maxResponseSize: number,
): ResponseTooLargeError {
  return new ResponseTooLargeError(`the response is larger than ${maxResponseSize} bytes`, {
    serviceName,
    instanceId,
    maxResponseSize,
  });
}

/** Creates the error of a body that cannot be decoded as its `Content-Encoding` says. */
export function createUndecodableError(
  { serviceName, instanceId }: Instance,
  encoding: string,
  cause: unknown,
): ResponseInvalidError {
  return new ResponseInvalidError(`the body of the response cannot be decoded as ${encoding.slice(0, 100)}`, {
    serviceName,
    instanceId,
    cause,
  });
}

/**
 * undici's codes for a request that it rejects; the last one is that of a body that was cut short.
 */
const INVALID_REQUEST_CODES: ReadonlySet<string | undefined> = new Set([
  'UND_ERR_INVALID_ARG',
  'UND_ERR_NOT_SUPPORTED',
  'UND_ERR_REQ_CONTENT_LENGTH_MISMATCH',
  'UND_ERR_ABORTED',
]);

/**
 * Makes undici's error of a failed request into one that a caller understands.
 *
 * @param sent whether the request was handed to a connection
 */
export function toServiceError(
  error: Error & { code?: string | undefined },
  instance: Instance,
  sent: boolean,
): Error {
  if (error instanceof ResponseTooLargeError) return error;
  if (INVALID_REQUEST_CODES.has(error.code))
    return new InvalidRequestError(error.message || error.code!, { cause: error });
  hideResponse(error);
  const { serviceName, instanceId } = instance;
  return new ServiceConnectionError(`the connection failed: ${error.message || error.code}`, {
    serviceName,
    instanceId,
    sent,
    cause: error,
  });
}

/**
 * Keeps the bytes of a response, which undici and Node attach to the errors of their parsers, out
 * of logs.
 */
function hideResponse(error: Error & { data?: unknown; rawPacket?: unknown }): void {
  for (const name of ['data', 'rawPacket'] as const) {
    if (name in error && Object.isExtensible(error))
      Object.defineProperty(error, name, { value: error[name], enumerable: false, writable: true });
  }
}
