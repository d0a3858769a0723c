/** Shortens a wait by up to 15 % at random, so that many processes do not fall into step. */
export function jittered(wait: number): number {
  return wait * (1 - 0.15 * Math.random());
}
