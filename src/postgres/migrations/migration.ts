/** A change of the schema. Once released it is never edited: a later one corrects it. */
export interface Migration {
  /** 1 for the first; each later one is one higher. */
  readonly version: number;
  readonly name: string;
  /** Run in their order, in one transaction. */
  readonly statements: readonly string[];
}
