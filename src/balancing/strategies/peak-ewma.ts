import { exploring } from './exploring.ts';
import { twoChoices } from './two-choices.ts';

/**
 * Picks, of two random candidates, the one where a call is likely to end first: the cost is its
 * average latency, in which peaks last, times the calls that it would then have under way. A
 * candidate that a peak leaves without calls is explored.
 * Source: Finagle, `com.twitter.finagle.loadbalancer.PeakEwma`, over two random choices.
 */
export const peakEwma = exploring(
  twoChoices((candidate, now) => candidate.latencyAt(now) * (candidate.inFlight + 1)),
);
