/**
 * Gives a wait between `from` and `to` times as long, by chance, so that processes and entries that
 * began together do not act together.
 *
 * @param random gives numbers from 0 to 1
 */
export function jitter(wait: number, from: number, to: number, random: () => number = Math.random): number {
  return wait * (from + (to - from) * random());
}
