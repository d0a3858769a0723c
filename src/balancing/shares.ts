/**
 * The index of the share that a point from 0 to 1 falls in, with the shares laid end to end; never
 * a share of 0.
 */
export function shareAt(shares: readonly number[], point: number): number {
  let rest = point;
  let last = 0;
  for (let index = 0; index < shares.length; index++) {
    const share = shares[index]!;
    if (share <= 0) continue;
    if (rest < share) return index;
    rest -= share;
    last = index;
  }
  // The shares may add up to a little less than 1, as floating-point numbers do.
  return last;
}
