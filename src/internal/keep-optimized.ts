const kept: object[] = [];

/**
 * Keeps one object of a class for good. V8 drops the code that it optimized for a class when a full
 * garbage collection finds none of its objects alive, so that calls would be slow for a while after
 * each collection in an idle moment.
 */
export function keepOptimized(sample: object): void {
  kept.push(sample);
}
