/** What a store knows of a key: whose it is now, or what it was answered with. */
export type KeyState =
  | { readonly state: 'begun' }
  | { readonly state: 'held' }
  | { readonly state: 'done'; readonly answer: string };

/**
 * Where idempotency keys are kept. Each method is atomic, and ends in time by itself: a request waits for it. What it
 * throws counts as the store being away.
 */
export interface IdempotencyStore {
  /**
   * Takes the key for the holder for so many milliseconds, or for as many again where it holds it already: `begun`.
   * `held` where another holder has it, `done` where there is an answer.
   */
  begin(key: string, holder: string, lease: number): Promise<KeyState>;
  /**
   * Keeps the answer for `ttl` milliseconds. Gives false, and keeps nothing, where another holder has the key, or it
   * has an answer already: a holder that comes late overwrites nothing.
   */
  complete(key: string, holder: string, answer: string, ttl: number): Promise<boolean>;
  /** Lets others take the key, if it is the holder's. */
  release(key: string, holder: string): Promise<void>;
}
