/** How many requests each client may make. */
export interface RateLimitRule {
  /** Requests in an interval. */
  limit: number;
  /** Milliseconds. */
  interval: number;
  /** Requests that may come at once. Default: `limit`. */
  burst?: number | undefined;
  /** The client that is counted: `address` (IPv6 by /64), `key` (the API key), or `claim:NAME`. Default `address`. */
  by?: string | undefined;
}

export interface RateLimitDecision {
  readonly allowed: boolean;
  /** Requests that may still come at once. */
  readonly remaining: number;
  /** Milliseconds until a rejected request would be allowed; 0 for one that is. */
  readonly retryAfter: number;
  /** Milliseconds until `remaining` is whole again. */
  readonly resetAfter: number;
}

/**
 * Counts requests by key. Where its server is away, it should count in this process: a gateway does so
 * for a store that throws, gives no decision, or takes longer than a second.
 */
export interface RateLimitStore {
  /** @param key names rule and client */
  take(key: string, rule: RateLimitRule): RateLimitDecision | Promise<RateLimitDecision>;
}
