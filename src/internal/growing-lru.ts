import { LRUCache } from 'lru-cache';

/**
 * A cache of the `max` entries that were used last, which takes memory for those that it has: one that is told the number
 * beforehand, as by the option `max` of LRUCache, takes it for all of them at once.
 */
export function growingLru<K extends {}, V extends {}>(max: number): LRUCache<K, V> {
  return new LRUCache<K, V>({ maxSize: max, sizeCalculation: () => 1 });
}
