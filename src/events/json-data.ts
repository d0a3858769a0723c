import { shown } from '../internal/shown.ts';
import { isPlain } from '../internal/validate.ts';

/** The most levels of objects and arrays in each other. */
const MAX_DEPTH = 64;

/**
 * Copies a value as JSON keeps it, so that later changes to the original change nothing. A field that
 * is undefined counts as left out.
 *
 * @param name names the value in errors
 * @throws TypeError that says where the value holds something that JSON does not keep, such as a
 * Date, a Map, NaN or a cycle
 */
export function copyJson(value: unknown, name: string): unknown {
  return copy(value, [name]);
}

/** @param path the name of the value, and the keys that lead to this part of it */
function copy(value: unknown, path: (string | number)[]): unknown {
  switch (typeof value) {
    case 'string':
    case 'boolean':
      return value;
    case 'number':
      if (Number.isFinite(value)) return value;
      throw new TypeError(`${describePath(path)} is ${value}, which is no number in JSON`);
    case 'object':
      return value === null ? null : copyObject(value, path);
    default:
      throw new TypeError(`${describePath(path)} is ${shown(value)}, which JSON does not keep`);
  }
}

function copyObject(value: object, path: (string | number)[]): unknown {
  if (path.length > MAX_DEPTH) {
    const start = describePath(path).slice(0, 100);
    throw new TypeError(`${start}… is within more than ${MAX_DEPTH} objects, or within itself`);
  }
  if (Array.isArray(value)) return Array.from(value, (item, index) => copyPart(item, path, index));
  if (!isPlain(value)) {
    throw new TypeError(
      `${describePath(path)} is ${shown(value)}, which JSON does not keep: give a plain object, a string or a number`,
    );
  }
  const result: Record<string, unknown> = {};
  for (const key of Object.keys(value)) {
    const field = (value as Record<string, unknown>)[key];
    if (field !== undefined) setField(result, key, copyPart(field, path, key));
  }
  return result;
}

function copyPart(value: unknown, path: (string | number)[], key: string | number): unknown {
  path.push(key);
  const result = copy(value, path);
  path.pop();
  return result;
}

function describePath([name, ...keys]: readonly (string | number)[]): string {
  return `${name}${keys.map((key) => (typeof key === 'number' ? `[${key}]` : `.${key}`)).join('')}`;
}

/** Sets a field whatever its name: an assignment to `__proto__` would set the prototype. */
function setField(object: Record<string, unknown>, key: string, value: unknown): void {
  if (key !== '__proto__') object[key] = value;
  else Object.defineProperty(object, key, { value, enumerable: true, writable: true, configurable: true });
}

/**
 * Whether a value out of JSON has more levels than an event may have: functions that walk through it
 * by recursion, JSON.stringify among them, could run out of stack.
 */
export function isTooDeep(value: unknown, depth = 0): boolean {
  if (typeof value !== 'object' || value === null) return false;
  if (depth === MAX_DEPTH) return true;
  if (Array.isArray(value)) return value.some((item) => isTooDeep(item, depth + 1));
  // It is out of JSON, so that it inherits nothing that can be enumerated: this makes no list of fields.
  for (const key in value) {
    if (isTooDeep((value as Record<string, unknown>)[key], depth + 1)) return true;
  }
  return false;
}
