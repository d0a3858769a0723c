import { LRUCache } from 'lru-cache';
import { checkSelector, keyOf, type Selector } from './selector.ts';
import type { Candidate, Picker } from './strategy.ts';

/** Selectors may come from requests: no more pickers than this are kept. */
const MAX_PICKERS = 100;

/** The pickers of what selectors match, made when first asked for; those asked for last are kept. */
export class Selections {
  readonly #make: (selector: Selector) => Picker;
  readonly #pickers = new LRUCache<string, Picker>({ max: MAX_PICKERS });

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
    }
    return picker;
  }

  loadChanged(candidate: Candidate): void {
    for (const picker of this.#pickers.values()) picker.loadChanged?.(candidate);
  }
}
