/** Names longer than this, far longer than any of ours, are not compared. */
const MAX_LENGTH = 40;

/**
 * Finds the name that a misspelt one most likely means: at most two letters away, and no more than
 * a third of them, in any case. Undefined if there is none.
 */
export function nearestName(misspelt: string, names: Iterable<string>): string | undefined {
  if (misspelt.length > MAX_LENGTH) return undefined;
  let nearest: string | undefined;
  let least = Infinity;
  for (const name of names) {
    const distance = distanceOf(misspelt.toLowerCase(), name.toLowerCase());
    if (distance >= least || distance > Math.min(2, Math.floor(name.length / 3))) continue;
    least = distance;
    nearest = name;
  }
  return nearest;
}

/**
 * Counts the letters to be added, left out, changed, or swapped with the next one. Source: Damerau
 * 1964, as optimal string alignment.
 */
function distanceOf(one: string, other: string): number {
  let beforeLast: number[] = [];
  let last = Array.from({ length: other.length + 1 }, (_, column) => column);
  for (let row = 1; row <= one.length; row++) {
    const current = [row];
    for (let column = 1; column <= other.length; column++) {
      const same = one[row - 1] === other[column - 1];
      let least = Math.min(last[column]! + 1, current[column - 1]! + 1, last[column - 1]! + (same ? 0 : 1));
      if (row > 1 && column > 1 && one[row - 1] === other[column - 2] && one[row - 2] === other[column - 1]) {
        least = Math.min(least, beforeLast[column - 2]! + 1);
      }
      current.push(least);
    }
    beforeLast = last;
    last = current;
  }
  return last[other.length]!;
}
