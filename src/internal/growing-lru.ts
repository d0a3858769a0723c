import { LRUCache } from 'lru-cache';

/**
 * Makes a cache of the `max` entries that were used last, which takes memory only for entries that
 * it has. The option `max` of LRUCache would take it for all of them at once.
 */
export function growingLru<K extends {}, V extends {}>(max: number): LRUCache<K, V> {
  return new LRUCache<K, V>({ maxSize: max, sizeCalculation: () => 1 });
}
