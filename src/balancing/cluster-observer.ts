import type { EjectionReason } from './outlier-detection.ts';
import type { Candidate } from './strategy.ts';

/** Why and for how long an instance is ejected. */
export interface Ejection {
  /** Milliseconds until the instance may get a probe. */
  duration: number;
  /**
   * The number of ejections that count for the duration; intervals in which the instance is well
   * reduce it.
   */
  ejections: number;
  /** The rule that ejected the instance; `probe` if it was ejected before and its probe failed. */
  reason: EjectionReason;
  /** The error of the last call; undefined where the rule compares instances over an interval. */
  error: unknown;
}

/**
 * Why an ejected instance is likely to be well again: another process runs in its place, or its
 * status turned `healthy`.
 */
export type Renewal = 'restarted' | 'healthy';

/** Receives what happens to the instances of one service. */
export interface ClusterObserver {
  joined(candidate: Candidate): void;
  renewed(candidate: Candidate, reason: Renewal): void;
  left(candidate: Candidate): void;
  ejected(candidate: Candidate, ejection: Ejection): void;
  returned(candidate: Candidate): void;
  /** A call got no response, so that the list of the instances may be out of date. */
  gotNoResponse(): void;
}
