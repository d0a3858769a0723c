import { InvalidRequestError } from '../errors.ts';
import { shown } from '../internal/shown.ts';
import { isPlain } from '../internal/validate.ts';

type Visit = (name: unknown, value: unknown) => void;

/**
 * Calls a function with each name and value of the headers of a request: an object, or an iterable
 * of pairs, such as Headers, a Map or a list; or a list of names and values in turn, as undici and
 * Node have them.
 *
 * @throws InvalidRequestError if the headers are none of these
 */
export function forEachHeader(given: unknown, visit: Visit): void {
  if (!Array.isArray(given) || Array.isArray(given[0])) {
    forEachPair(given, 'headers', visit);
    return;
  }
  if (given.length % 2 !== 0) throw new InvalidRequestError('a list of headers must have an even length');
  for (let index = 0; index < given.length; index += 2) visit(given[index], given[index + 1]);
}

/**
 * Calls a function with each name and value of an object, or of an iterable of pairs.
 *
 * @param what names the pairs in the message of the error
 * @throws InvalidRequestError if `given` is neither, since its content would be lost
 */
export function forEachPair(given: unknown, what: string, visit: Visit): void {
  if (typeof given !== 'object' || given === null) throw createPairsError(given, what);
  if (Symbol.iterator in given) {
    for (const pair of given as Iterable<unknown>) {
      if (!Array.isArray(pair) || pair.length !== 2) throw createPairsError(pair, what, 'an iterable with ');
      visit(pair[0], pair[1]);
    }
    return;
  }
  const names = Object.keys(given);
  if (names.length === 0 && !isPlain(given)) throw createPairsError(given, what);
  for (const name of names) visit(name, (given as Record<string, unknown>)[name]);
}

/** Creates the error without the content of a string, which may be a credential. */
function createPairsError(value: unknown, what: string, where = ''): InvalidRequestError {
  const kind = typeof value === 'string' ? 'a string' : shown(value);
  return new InvalidRequestError(
    `the ${what} must be an object, a Map, or pairs of a name and a value; got ${where}${kind}`,
  );
}
