import type { OutgoingHttpHeaders } from 'node:http';

/**
 * Reads the headers that were given to `writeHead`: an object, or a list of names and values in
 * turn, or a list of pairs.
 */
export function readHeadHeaders(given: unknown): OutgoingHttpHeaders {
  if (typeof given !== 'object' || given === null) return {};
  if (!Array.isArray(given)) return toLowerCaseNames(Object.entries(given));
  const pairs: [string, string][] = [];
  const list = given.flat();
  for (let index = 0; index + 1 < list.length; index += 2) pairs.push([list[index], list[index + 1]]);
  return toLowerCaseNames(pairs);
}

function toLowerCaseNames(pairs: Iterable<[string, string | string[]]>): OutgoingHttpHeaders {
  const headers: Record<string, string | string[]> = {};
  for (const [name, value] of pairs) {
    const lower = name.toLowerCase();
    const before = headers[lower];
    headers[lower] = before === undefined ? value : [before, value].flat();
  }
  return headers;
}
