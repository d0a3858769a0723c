import { LRUCache } from 'lru-cache';
import { checkSelector, keyOf, type Selector } from './selector.ts';
import type { Candidate, Picker } from './strategy.ts';

/**
 * Selectors may come from requests: this bounds the number of pickers, and the length of all
 * selectors together.
 */
const MAX_PICKERS = 100;
const MAX_CHARACTERS = 1_000_000;

/**
 * A cache of the pickers for selectors. A picker is built when its selector is first used; the
 * latest used are kept.
 */
export class SelectorPickers {
  readonly #build: (selector: Selector) => Picker;
  readonly #pickers = new LRUCache<string, Picker>({
    maxSize: MAX_CHARACTERS,
    sizeCalculation: (_, key) => key.length,
  });
  /** The pickers with a `loadChanged`, each once; undefined after a change of the cache. */
  #loadObservers: readonly Picker[] | undefined = undefined;

  constructor(build: (selector: Selector) => Picker) {
    this.#build = build;
  }

  /** @throws TypeError if the selector is none. */
  pickerFor(selector: Selector): Picker {
    checkSelector(selector, 'select');
    const key = keyOf(selector);
    let picker = this.#pickers.get(key);
    if (picker === undefined) {
      picker = this.#build(selector);
      this.#pickers.set(key, picker);
      if (this.#pickers.size > MAX_PICKERS) this.#pickers.pop();
      this.#loadObservers = undefined;
    }
    return picker;
  }

  loadChanged(candidate: Candidate): void {
    this.#loadObservers ??= [...new Set(this.#pickers.values())].filter(
      ({ loadChanged }) => loadChanged !== undefined,
    );
    for (const picker of this.#loadObservers) picker.loadChanged!(candidate);
  }
}
