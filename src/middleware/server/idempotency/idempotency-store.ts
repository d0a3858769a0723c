/**
 * The state of a key in a store: `begun` if the holder that asked has locked it, `locked` if
 * another holder has, `done` if there is a stored response, `revoked` if its request must not be
 * handled any more, as another one has compensated it.
 */
export type KeyState =
  | { readonly state: 'begun' }
  | { readonly state: 'locked' }
  | { readonly state: 'done'; readonly response: string }
  | { readonly state: 'revoked' };

/** The state of a key that another request compensates. */
export type CompensatedState = Exclude<KeyState, { readonly state: 'begun' }>;

/**
 * Stores idempotency keys. Each method is atomic, and ends in time by itself, since a request waits
 * for it. When a method throws, the store counts as unavailable.
 */
export interface IdempotencyStore {
  /**
   * Locks the key for the holder for `lockTimeout` milliseconds, or renews the lock for as many if
   * the holder has it already: `begun`. Gives `locked` if another holder has the lock, `done` if
   * there is a stored response, `revoked` if the key is.
   */
  begin(key: string, holder: string, lockTimeout: number): Promise<KeyState>;
  /**
   * Stores the response for `ttl` milliseconds. Gives false, and stores nothing, if another holder
   * has the lock, if there is a stored response already, or if the key is revoked: a late holder
   * overwrites nothing.
   */
  complete(key: string, holder: string, response: string, ttl: number): Promise<boolean>;
  /** Unlocks the key if the holder has the lock. */
  release(key: string, holder: string): Promise<void>;
  /**
   * Revokes the key for `ttl` milliseconds from now: `revoked`, unless a holder has the lock, which
   * changes nothing and gives `locked`, or there is a stored response: it gives `done`, and keeps
   * the response for as many milliseconds at least. A lock that has expired counts for nothing, even
   * if its holder comes back.
   *
   * Without this method, requests with a `Compensates-Key` are rejected with 501.
   */
  compensate?(key: string, ttl: number): Promise<CompensatedState>;
}
