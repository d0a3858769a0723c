/**
 * The safe methods: a request with one of them changes nothing. Source: RFC 9110, section 9.2.1,
 * and for QUERY RFC 10008.
 */
const SAFE: ReadonlySet<string> = new Set(['GET', 'HEAD', 'OPTIONS', 'TRACE', 'QUERY']);

/**
 * The idempotent methods: sending a request with one of them twice does the same as sending it
 * once. Source: RFC 9110, section 9.2.2.
 */
const IDEMPOTENT: ReadonlySet<string> = new Set([...SAFE, 'PUT', 'DELETE']);

/**
 * The methods that an Idempotency-Key makes safe to send again. Source:
 * draft-ietf-httpapi-idempotency-key-header, section 1.
 */
const KEYED: ReadonlySet<string> = new Set(['POST', 'PATCH']);

/**
 * The methods that retrieve the resource of a path, so that responses to them can be kept for the
 * path. In a fetch they have no body.
 */
const RETRIEVAL: ReadonlySet<string> = new Set(['GET', 'HEAD']);

export function isSafeMethod(method: string): boolean {
  return SAFE.has(method);
}

export function isIdempotentMethod(method: string): boolean {
  return IDEMPOTENT.has(method);
}

/** Whether a request of the method needs an Idempotency-Key to be sent again safely. */
export function isKeyedMethod(method: string): boolean {
  return KEYED.has(method);
}

/** Whether the method is GET or HEAD. */
export function isRetrieval(method: string): boolean {
  return RETRIEVAL.has(method);
}
