/** Edits that a name may be away from the one that was meant. */
const MAX_EDITS = 2;

/** The known name that a misspelled one is likely to stand for, if there is one. */
export function nearest(name: string, known: readonly string[]): string | undefined {
  let found: string | undefined;
  let fewest = MAX_EDITS + 1;
  for (const candidate of known) {
    const edits = editsBetween(name.toLowerCase(), candidate.toLowerCase());
    // Of a short name two edits leave nothing.
    if (edits < Math.min(fewest, candidate.length / 2)) {
      fewest = edits;
      found = candidate;
    }
  }
  return found;
}

/** The least number of characters that must be added, left out or changed: the Levenshtein distance. */
function editsBetween(one: string, other: string): number {
  if (Math.abs(one.length - other.length) > MAX_EDITS) return Infinity;
  let row = Array.from({ length: other.length + 1 }, (_, column) => column);
  for (let line = 1; line <= one.length; line++) {
    const next = [line];
    for (let column = 1; column <= other.length; column++) {
      const changed = row[column - 1]! + (one[line - 1] === other[column - 1] ? 0 : 1);
      next.push(Math.min(changed, row[column]! + 1, next[column - 1]! + 1));
    }
    row = next;
  }
  return row[other.length]!;
}
