import type { ServiceInstance } from '../discovery/service-instance.ts';
import { anObject } from '../internal/validate.ts';

/** Selects the instances whose metadata has all of these values: `{ version: '2' }`. */
export type Selector = Readonly<Record<string, string>>;

/** A key that is the same for selectors with the same entries in any order. */
export function keyOf(selector: Selector): string {
  const entries = Object.entries(selector);
  if (entries.length > 1) entries.sort(([one], [other]) => (one < other ? -1 : 1));
  return JSON.stringify(entries);
}

export function matches(selector: Selector, { metadata }: ServiceInstance): boolean {
  return Object.entries(selector).every(([name, value]) => metadata[name] === value);
}

/** @throws TypeError unless the value is a selector. */
export function checkSelector(value: unknown, option: string): void {
  anObject(value, option);
  if (!Object.values(value as object).every((item) => typeof item === 'string')) {
    throw new TypeError(`${option} must be an object of strings, as metadata is`);
  }
}
