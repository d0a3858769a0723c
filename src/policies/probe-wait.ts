import { jitter } from '../internal/jitter.ts';
import { exponentialBackoff } from './backoff.ts';

const growing = exponentialBackoff({ base: 500, factor: 1.25, max: 5_000, jitter: 'none' });

/**
 * Gives how long a breaker with default options waits for a probe: 0.5 s, a quarter longer each
 * time, up to 5 s, and up to a tenth more by chance. The waits are short, since a probe costs one
 * call: with waits of half a minute a service is away for twice as long as it was down.
 */
export function probeWait(openings: number, previous: number): number {
  return jitter(growing(openings, previous), 1, 1.1);
}
