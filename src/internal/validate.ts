import { isPromise } from 'node:util/types';
import { shown } from './shown.ts';

/**
 * Throws if the value is not allowed: a TypeError if it is of the wrong type, a RangeError if it is
 * a number out of range. `option` is the full name to show.
 */
export interface Check {
  (value: unknown, option: string): void;
  /** Finds the same without an error, which costs much where another check may pass. */
  readonly findMismatch?: ((value: unknown) => Mismatch | undefined) | undefined;
}

/** A value that is not allowed is of the wrong type, or a number out of range. */
type Mismatch = 'type' | 'range';

/** Makes a check of a function that finds what is wrong; `expected` is what the message says. */
function toCheck(expected: string, findMismatch: (value: unknown) => Mismatch | undefined): Check {
  const check = (value: unknown, option: string): void => {
    const mismatch = findMismatch(value);
    if (mismatch === 'type') failType(option, expected, value);
    if (mismatch === 'range') failRange(option, expected, value);
  };
  return Object.assign(check, { findMismatch });
}

/** Makes a check of the type alone. */
function toTypeCheck(expected: string, passes: (value: unknown) => boolean): Check {
  return toCheck(expected, (value) => (passes(value) ? undefined : 'type'));
}

function failType(option: string, expected: string, value: unknown): never {
  noPromise(value, option);
  throw new TypeError(describeMismatch(option, expected, value));
}

function failRange(option: string, expected: string, value: unknown): never {
  throw new RangeError(describeMismatch(option, expected, value));
}

function describeMismatch(option: string, expected: string, value: unknown): string {
  return `${option} must be ${expected}; got ${shown(value)}`;
}

/**
 * A number between `min` and `max` inclusive. NaN never passes; Infinity passes only where `max`
 * allows it.
 */
export function number(min: number, max = Number.MAX_VALUE): Check {
  const expected =
    max === Number.MAX_VALUE || max === Infinity
      ? `a number${min === -Infinity ? '' : ` of at least ${min}`}`
      : `a number from ${min} to ${max}`;
  return toCheck(expected, (value) => {
    if (typeof value !== 'number') return 'type';
    return value >= min && value <= max ? undefined : 'range';
  });
}

/** A whole number of at least `min`; `Infinity` passes if `max` is Infinity. */
export function integer(min: number, max = Number.MAX_SAFE_INTEGER): Check {
  const expected =
    max >= Number.MAX_SAFE_INTEGER
      ? `a whole number of at least ${min}`
      : `a whole number from ${min} to ${max}`;
  return toCheck(expected, (value) => {
    if (typeof value !== 'number') return 'type';
    const whole = Number.isInteger(value) || (value === Infinity && max === Infinity);
    return whole && value >= min && value <= max ? undefined : 'range';
  });
}

/** The longest delay that setTimeout can keep: 2^31 − 1 ms. A longer one would fire at once. */
export const MAX_DELAY = 2 ** 31 - 1;

export const anyNumber = number(-Infinity, Infinity);

/** A duration in milliseconds that a timer can wait for. */
export const duration = number(0, MAX_DELAY);

/** A duration in milliseconds, without end too. */
export const anyDuration = number(0, Infinity);

/** A share, 0 to 1. */
export const ratio = number(0, 1);

export const isFunction = toTypeCheck('a function', (value) => typeof value === 'function');

export const boolean = toTypeCheck('true or false', (value) => typeof value === 'boolean');

export const nonEmptyString = toTypeCheck(
  'a non-empty string',
  (value) => typeof value === 'string' && value !== '',
);

/** A string of a form; `expected` says which. */
export function matching(form: RegExp, expected: string): Check {
  return toTypeCheck(expected, (value) => typeof value === 'string' && form.test(value));
}

/** An object that has the given methods. */
export function hasMethods(...methods: string[]): Check {
  const expected = `an object with ${methods.map((method) => `${method}()`).join(', ')}`;
  return toTypeCheck(expected, (value) => {
    const object = value as Record<string, unknown> | null | undefined;
    return methods.every((method) => typeof object?.[method] === 'function');
  });
}

/** Whether an object is one of `{}`, in any realm, or without a prototype. */
export function isPlain(value: object): boolean {
  const prototype = Object.getPrototypeOf(value);
  return prototype === null || Object.getPrototypeOf(prototype) === null;
}

/**
 * Whether a value has fields of its own: a plain object, or an instance of a class that has some.
 * The content of a Map, of a promise or behind a getter would count as left out.
 */
function hasFields(value: unknown): value is object {
  if (typeof value !== 'object' || value === null || Array.isArray(value) || isPromise(value)) return false;
  return isPlain(value) || Object.keys(value).length > 0;
}

/**
 * An object with fields of its own: no list, no Map, no function, no null. `expected` describes it.
 */
export function objectOf(expected: string): Check {
  return toTypeCheck(expected, hasFields);
}

export const anObject = objectOf('an object with fields of its own');

/** An object whose fields are read by name: no list, Map or promise. */
export const readByName: Check = (value, option) => {
  const byName = typeof value === 'object' && value !== null && !(Symbol.iterator in value);
  if (!byName || isPromise(value)) failType(option, 'an object whose fields are read by name', value);
};

/** An instance of the class. */
export function instanceOf(type: abstract new (...args: never[]) => unknown, expected: string): Check {
  return toTypeCheck(expected, (value) => value instanceof type);
}

/** A list whose items pass the check. */
export function listOf(check: Check, expected: string): Check {
  return (value, option) => {
    if (!Array.isArray(value)) failType(option, expected, value);
    value.forEach((item, index) => void check(item, `${option}[${index}]`));
  };
}

/** One of some literals. */
export function oneOf(...allowed: readonly unknown[]): Check {
  const expected = allowed.map((item) => `'${String(item)}'`).join(' or ');
  return toTypeCheck(expected, (value) => allowed.includes(value));
}

/** Passes if one of the checks does; `expected` is what the message says otherwise. */
export function either(expected: string, ...checks: Check[]): Check {
  return toCheck(expected, (value) => {
    let found: Mismatch = 'type';
    for (const check of checks) {
      const mismatch = findMismatch(check, value);
      if (mismatch === undefined) return undefined;
      if (mismatch === 'range') found = mismatch;
    }
    return found;
  });
}

function findMismatch(check: Check, value: unknown): Mismatch | undefined {
  if (check.findMismatch !== undefined) return check.findMismatch(value);
  try {
    check(value, 'it');
    return undefined;
  } catch (error) {
    return error instanceof RangeError ? 'range' : 'type';
  }
}

/**
 * Rejects a promise, which would count as an empty object, and handles its rejection. Other
 * thenables may be meant: an instance of Fastify is one.
 */
export const noPromise: Check = (value, option) => {
  if (!isPromise(value)) return;
  value.catch(() => {});
  throw new TypeError(`${option} must not be a promise: await it first`);
};

/** Passes: another check follows elsewhere. */
export const any: Check = () => {};

/**
 * The new names of options by their former names; of an option whose values were renamed, the new
 * values by the former ones.
 */
export type RenamedOptions = Readonly<Record<string, string | Readonly<Record<string, string>>>>;

/**
 * Checks an options object: each option by its check unless it is undefined, and no option that the
 * table does not know, so that a misspelled name is an error and not a silent default. No option is
 * a promise.
 *
 * @param renamed what the TypeError for a former name tells
 */
export function validateOptions(
  owner: string,
  options: object,
  table: Record<string, Check>,
  renamed?: RenamedOptions,
): void {
  noPromise(options, `the options of ${owner}`);
  if (!hasFields(options)) {
    throw new TypeError(`${owner} takes an options object with fields of its own; got ${shown(options)}`);
  }
  for (const [name, value] of Object.entries(options)) {
    if (renamed !== undefined && Object.hasOwn(renamed, name)) {
      rejectFormerName(`${owner} option '${name}'`, renamed[name]!, value);
    }
    const check = Object.hasOwn(table, name) ? table[name] : undefined;
    if (check === undefined) {
      throw new TypeError(
        `${owner} has no option ${shown(name)}; its options are ${Object.keys(table).join(', ')}`,
      );
    }
    if (value === undefined) continue;
    noPromise(value, `${owner} option '${name}'`);
    check(value, `${owner} option '${name}'`);
  }
}

function rejectFormerName(option: string, renamed: RenamedOptions[string], value: unknown): void {
  if (typeof renamed === 'string') throw new TypeError(`${option} was renamed to '${renamed}'`);
  if (typeof value === 'string' && Object.hasOwn(renamed, value)) {
    throw new TypeError(`${option}: '${value}' was renamed to '${renamed[value]}'`);
  }
}

/** Throws a TypeError if an option that has no default was left out. */
export function requireOption(owner: string, options: object, name: string): void {
  if ((options as Record<string, unknown>)[name] === undefined)
    throw new TypeError(`${owner} needs the option '${name}'`);
}
