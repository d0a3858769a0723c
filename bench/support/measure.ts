/** What is measured side by side: a name and one call of it. */
export type Contender = readonly [name: string, call: () => unknown];

export function median(values: readonly number[]): number {
  return [...values].sort((a, b) => a - b)[values.length >> 1]!;
}

/**
 * Microseconds of one call after another, the median of several rounds in which the contenders take turns, so
 * that a machine whose speed drifts is the same for all.
 */
export async function microseconds(
  contenders: readonly Contender[],
  { calls = 20_000, rounds = 9 } = {},
): Promise<Map<string, number>> {
  const times = new Map<string, number[]>(contenders.map(([name]) => [name, []]));
  for (let round = -2; round < rounds; round++) {
    for (const [name, call] of contenders) {
      const startedAt = performance.now();
      for (let index = 0; index < calls; index++) await call();
      if (round >= 0) times.get(name)!.push(((performance.now() - startedAt) / calls) * 1000);
    }
  }
  return new Map([...times].map(([name, values]) => [name, median(values)]));
}

/** Prints a table in Markdown. */
export function table(title: string, head: readonly string[], rows: readonly (readonly string[])[]): void {
  console.log(`\n### ${title}\n`);
  console.log(`| ${head.join(' | ')} |`);
  console.log(`| ${head.map((_, column) => (column === 0 ? '---' : '---:')).join(' | ')} |`);
  for (const row of rows) console.log(`| ${row.join(' | ')} |`);
}
