/** RFC 9110, section 9.2.1, and for QUERY RFC 10008: a request with one of these changes nothing. */
const SAFE: ReadonlySet<string> = new Set(['GET', 'HEAD', 'OPTIONS', 'TRACE', 'QUERY']);

/** RFC 9110, section 9.2.2: sending a request with one of these twice does the same as sending it once. */
const IDEMPOTENT: ReadonlySet<string> = new Set([...SAFE, 'PUT', 'DELETE']);

/** Those that are made safe to send again by an Idempotency-Key: draft-ietf-httpapi-idempotency-key-header, section 1. */
const KEYED: ReadonlySet<string> = new Set(['POST', 'PATCH']);

/** Those that retrieve what is at a path, so that responses to them can be kept for it; in a fetch they have no body. */
const RETRIEVAL: ReadonlySet<string> = new Set(['GET', 'HEAD']);

export function isSafeMethod(method: string): boolean {
  return SAFE.has(method);
}

export function isIdempotentMethod(method: string): boolean {
  return IDEMPOTENT.has(method);
}

/** Whether an Idempotency-Key is heeded with the method. */
export function isKeyedMethod(method: string): boolean {
  return KEYED.has(method);
}

/** Whether the method is GET or HEAD. */
export function isRetrieval(method: string): boolean {
  return RETRIEVAL.has(method);
}
