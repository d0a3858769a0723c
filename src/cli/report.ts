import type { Output } from './output.ts';
import { printableJson } from './printable.ts';
import { alignColumns } from './table.ts';

/** Tells how items of one kind are listed. */
export interface ListView<Item> {
  /** The words for an empty list. */
  readonly nothing: string;
  readonly columns: readonly string[];
  toRow(item: Item): string[];
  toJson(item: Item): unknown;
}

/** Writes for people, or for programs. */
export class Report {
  /** Where it was looked for. */
  readonly place: string;
  readonly #output: Output;
  readonly #json: boolean;

  constructor(output: Output, json: boolean, place: string) {
    this.#output = output;
    this.#json = json;
    this.place = place;
  }

  tell(lines: readonly string[], json: unknown): void {
    if (this.#json) this.#output.write(`${printableJson([json], 2)}\n`);
    else this.#output.writeLines(lines);
  }

  /** @param scope says to what a list is bounded, if it is empty */
  async list<Item>(
    view: ListView<Item>,
    items: AsyncIterable<Item> | readonly Item[],
    scope = '',
  ): Promise<void> {
    if (this.#json) await this.#writeArray(view, items);
    else await this.#writeTable(view, items, scope);
  }

  /** Writes each item as it comes: there may be many. */
  async #writeArray<Item>(view: ListView<Item>, items: AsyncIterable<Item> | readonly Item[]): Promise<void> {
    let before = '[\n';
    for await (const item of items) {
      if (this.#output.closed.aborted) return;
      this.#output.write(`${before}${printableJson(view.toJson(item))}`);
      before = ',\n';
    }
    this.#output.write(before === ',\n' ? '\n]\n' : '[]\n');
  }

  async #writeTable<Item>(
    { columns, toRow, nothing }: ListView<Item>,
    items: AsyncIterable<Item> | readonly Item[],
    scope: string,
  ): Promise<void> {
    const rows: string[][] = [];
    for await (const item of items) rows.push(toRow(item));
    this.#output.writeLines(
      rows.length > 0 ? alignColumns([columns, ...rows]) : [`${nothing}${scope} ${this.place}`],
    );
  }
}
