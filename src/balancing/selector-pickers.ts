import { LRUCache } from 'lru-cache';
import { checkSelector, keyOf, type Selector } from './selector.ts';
import type { Candidate, Picker } from './strategy.ts';

/** Selectors may come from requests: no more pickers than this are kept, and of no longer selectors in all. */
const MAX_PICKERS = 100;
const MAX_CHARACTERS = 1_000_000;

/** The pickers of what selectors match, made when first asked for; those asked for last are kept. */
export class SelectorPickers {
  readonly #make: (selector: Selector) => Picker;
  readonly #pickers = new LRUCache<string, Picker>({
    maxSize: MAX_CHARACTERS,
    sizeCalculation: (_, key) => key.length,
  });
  /** Those kept that want to be told of loads, each once; undefined where others are kept since. */
  #told: readonly Picker[] | undefined = undefined;

  constructor(make: (selector: Selector) => Picker) {
    this.#make = make;
  }

  /** @throws TypeError if it is not a selector. */
  pickerFor(selector: Selector): Picker {
    checkSelector(selector, 'select');
    const key = keyOf(selector);
    let picker = this.#pickers.get(key);
    if (picker === undefined) {
      picker = this.#make(selector);
      this.#pickers.set(key, picker);
      if (this.#pickers.size > MAX_PICKERS) this.#pickers.pop();
      this.#told = undefined;
    }
    return picker;
  }

  loadChanged(candidate: Candidate): void {
    this.#told ??= [...new Set(this.#pickers.values())].filter(
      ({ loadChanged }) => loadChanged !== undefined,
    );
    for (const picker of this.#told) picker.loadChanged!(candidate);
  }
}
