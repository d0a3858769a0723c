/**
 * The state of a key in a store: `begun` if the holder that asked has locked it, `locked` if
 * another holder has, `done` if there is a stored response.
 */
export type KeyState =
  | { readonly state: 'begun' }
  | { readonly state: 'locked' }
  | { readonly state: 'done'; readonly response: string };

/**
 * Stores idempotency keys. Each method is atomic, and ends in time by itself, since a request waits
 * for it. When a method throws, the store counts as unavailable.
 */
export interface IdempotencyStore {
  /**
   * Locks the key for the holder for `lockTimeout` milliseconds, or renews the lock for as many if
   * the holder has it already: `begun`. Gives `locked` if another holder has the lock, `done` if
   * there is a stored response.
   */
  begin(key: string, holder: string, lockTimeout: number): Promise<KeyState>;
  /**
   * Stores the response for `ttl` milliseconds. Gives false, and stores nothing, if another holder
   * has the lock, or if there is a stored response already: a late holder overwrites nothing.
   */
  complete(key: string, holder: string, response: string, ttl: number): Promise<boolean>;
  /** Unlocks the key if the holder has the lock. */
  release(key: string, holder: string): Promise<void>;
}
