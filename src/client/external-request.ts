import {
  type PreparedRequest,
  parseMethod,
  parseUrlPath,
  type ServiceCall,
  setIdempotencyKey,
} from './service-call.ts';

/**
 * A request that is not sent over the client's own connections: the part of it that the client has
 * to know.
 */
export interface ExternalRequest extends Pick<ServiceCall, 'service' | 'method' | 'path'> {
  /** The headers that say how to make the call: names in lower case and values in turn. */
  readonly headers: readonly string[];
}

/**
 * Prepares the call of an external request.
 *
 * @throws InvalidRequestError naming the part that is malformed
 */
export function prepareExternal(request: ExternalRequest): PreparedRequest {
  const headers = [...request.headers];
  setIdempotencyKey(headers, {});
  return {
    method: parseMethod(request),
    path: parseUrlPath(request.path),
    headers,
    body: null,
    // The engine retries only while nothing was sent: until then any instance will do.
    replayable: true,
    idempotent: false,
  };
}
