/**
 * Decides who of several does what only one of them should do: whoever has the lease, for as long as it lasts, so that
 * another takes over when the holder dies.
 */
export interface Leases {
  /**
   * True if the holder has it from now on for `duration` milliseconds: it was free, had run out, or was the holder's
   * own. Rejects if that cannot be told.
   */
  acquire(name: string, holder: string, duration: number): Promise<boolean>;
  /** Frees it at once if it is the holder's. */
  release(name: string, holder: string): Promise<void>;
}
