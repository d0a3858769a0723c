/** The exports of a file in test/trials. */
export interface Trial {
  /** The subject of the trial, in one sentence. */
  readonly about: string;
  /** @param seed decides all chance that is the trial's own */
  run(seed: number): Promise<Row[]>;
}

/** The finding of a trial in one situation. */
export interface Row {
  readonly situation: string;
  readonly measured: string;
  readonly required: string;
  /** Whether what was measured is what is required. */
  readonly ok: boolean;
}
