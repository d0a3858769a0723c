import { shown } from './shown.ts';

/** Whether `await` would wait for the value. */
export function isThenable(value: unknown): value is PromiseLike<unknown> {
  return (
    ((typeof value === 'object' && value !== null) || typeof value === 'function') &&
    typeof (value as { then?: unknown }).then === 'function'
  );
}

/**
 * Gives back the decision of a user's function. A promise would count as true, or as an object, so
 * it is an error, and its rejection is handled.
 *
 * @param option the full name to show, such as "CircuitBreaker option 'isFailure'".
 * @throws TypeError that names the option if the value is a promise.
 */
export function decided<T>(value: T, option: string): T {
  if (isThenable(value)) throw promised(value, option);
  return value;
}

/**
 * Gives back the key on which a user's function decided. An object would be another key each time,
 * so that no two calls would ever have the same one; and the number 1 is another key than the text '1'
 * in memory, and the same one in a store.
 *
 * @throws TypeError that names the option if the value is no string, and not undefined.
 */
export function decidedKey(value: string | undefined, option: string): string | undefined {
  if (typeof value === 'string' || value === undefined) return value;
  throw undecided(value, option, 'a string, or undefined');
}

/** Creates the error of a user's function that gave another value than the ones that it may decide on. */
export function undecided(value: unknown, option: string, expected: string): TypeError {
  return isThenable(value)
    ? promised(value, option)
    : new TypeError(`${option} must give ${expected}; it gave ${shown(value)}`);
}

function promised(value: PromiseLike<unknown>, option: string): TypeError {
  Promise.resolve(value).catch(ignore);
  return new TypeError(`${option} must decide at once; it gave a promise, as an async function does`);
}

function ignore(): void {}
