import {
  type PreparedRequest,
  parseMethod,
  parseUrlPath,
  type ServiceCall,
  setIdempotencyKey,
} from './service-call.ts';

/** A request that is sent by other means than the connections of a client: what the client has to know of it. */
export interface ExternalRequest extends Pick<ServiceCall, 'service' | 'method' | 'path'> {
  /** The headers that say how the request is to be called, names in lower case and values in turn. */
  readonly headers: readonly string[];
}

/** @throws InvalidRequestError naming the part that is malformed. */
export function prepareExternal(request: ExternalRequest): PreparedRequest {
  const headers = [...request.headers];
  setIdempotencyKey(headers, {});
  return {
    method: parseMethod(request),
    path: parseUrlPath(request.path),
    headers,
    body: null,
    // As long as nothing is sent any instance will do.
    replayable: true,
    idempotent: false,
  };
}
