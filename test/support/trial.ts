/** What a file in test/trials exports. */
export interface Trial {
  /** What the trial is about, in one sentence. */
  readonly about: string;
  /** @param seed decides all chance that is the trial's own */
  run(seed: number): Promise<Row[]>;
}

/** What a trial has found in one situation. */
export interface Row {
  readonly situation: string;
  readonly measured: string;
  readonly required: string;
  /** Whether what was measured is what is required. */
  readonly ok: boolean;
}
