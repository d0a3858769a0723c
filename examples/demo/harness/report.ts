/** The results of the orders of one phase. */
export class Phase {
  readonly title: string;
  succeeded = 0;
  rejected = 0;
  retries = 0;
  readonly latencies: number[] = [];
  readonly rejections: number[] = [];

  constructor(title: string) {
    this.title = title;
  }

  get row(): Record<string, string | number> {
    const orders = this.succeeded + this.rejected;
    return {
      phase: this.title,
      orders,
      succeeded: `${((100 * this.succeeded) / orders).toFixed(1)} %`,
      'p50 ms': percentile(this.latencies, 0.5),
      'p99 ms': percentile(this.latencies, 0.99),
      'p50 of rejections ms': percentile(this.rejections, 0.5),
      retries: this.retries,
    };
  }
}

function percentile(values: number[], share: number): string {
  if (values.length === 0) return '–';
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.floor(share * (sorted.length - 1))]!.toFixed(1);
}
