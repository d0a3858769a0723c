/** The results of a simulation. */
export interface Report {
  title: string;
  /** The publication whose figures the results are measured against. */
  source: string;
  /** The setting, as far as the source leaves it open or ours differs. */
  assumed: string;
  head: string[];
  rows: string[][];
  /** SVG by name of the file. */
  plots: Record<string, string>;
}

/** The value below which a share of the sorted values lies. */
export function percentile(sorted: readonly number[], share: number): number {
  return sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))]!;
}

export function mean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}

export function count(value: number): string {
  return Math.round(value).toLocaleString('en');
}

export function milliseconds(value: number): string {
  return `${count(value)} ms`;
}

export function percent(share: number, digits = 1): string {
  return `${(100 * share).toFixed(digits)} %`;
}

export function times(factor: number, digits = 2): string {
  return `${factor.toFixed(digits)}×`;
}
