import { twoChoices } from './two-choices.ts';

/**
 * Of two random candidates, the one where a call is likely to be done first: its average latency, peaks
 * remembered, times the calls that it would then have under way.
 * Source: Finagle, `com.twitter.finagle.loadbalancer.PeakEwma`, over two random choices.
 */
export const peakEwma = twoChoices((candidate, now) => candidate.latencyAt(now) * (candidate.inFlight + 1));
