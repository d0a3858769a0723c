import { twoChoices } from './two-choices.ts';

/** Charged to a candidate that has calls under way and has never answered: it is likely slow, or starting. */
const UNKNOWN = 10_000;

/**
 * Of two random candidates, the one where a call is likely to be done first: its average latency, peaks
 * remembered, times the calls that it would then have under way.
 * Source: Finagle, `com.twitter.finagle.loadbalancer.PeakEwma`, over two random choices.
 */
export const peakEwma = twoChoices((candidate, now) => {
  const latency = candidate.latencyAt(now);
  if (latency === 0 && candidate.inFlight > 0) return UNKNOWN + candidate.inFlight;
  return latency * (candidate.inFlight + 1);
});
