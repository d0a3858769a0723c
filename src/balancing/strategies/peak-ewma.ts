import { exploring } from './exploring.ts';
import { twoChoices } from './two-choices.ts';

/**
 * Of two random candidates, the one where a call is likely to be done first: its average latency, peaks
 * remembered, times the calls that it would then have under way. A candidate that a peak leaves without calls is explored.
 * Source: Finagle, `com.twitter.finagle.loadbalancer.PeakEwma`, over two random choices.
 */
export const peakEwma = exploring(
  twoChoices((candidate, now) => candidate.latencyAt(now) * (candidate.inFlight + 1)),
);
