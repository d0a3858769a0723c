/**
 * Decides which of several processes does what only one of them should do. The holder has a lock
 * for a limited time, so that another process takes over when the holder dies.
 */
export interface LockService {
  /**
   * Gives true if the holder has the lock from now on for `duration` milliseconds: the lock was
   * free, had run out, or was the holder's own. Rejects if that cannot be told.
   */
  acquire(name: string, holder: string, duration: number): Promise<boolean>;
  /** Frees the lock at once if it is the holder's. */
  release(name: string, holder: string): Promise<void>;
}
