import { shown } from '../../internal/shown.ts';
import type { SplitRequest } from './split.ts';

/** Gives the key that keeps a client at one version; undefined if its request has none. */
export type StickyKey = (request: SplitRequest) => string | undefined;

const FORM = /^(cookie|header|claim):(.+)$|^address$/;
/** Names of headers and cookies: RFC 9110, section 5.6.2. */
const TOKEN = /^[!#$%&'*+.^_`|~\dA-Za-z-]+$/;

/**
 * Parses the `sticky` of a route: `cookie:NAME`, `header:NAME`, `claim:NAME` or `address`.
 *
 * @throws TypeError naming the option
 */
export function parseSticky(sticky: string, option: string): StickyKey {
  const [, kind, name = ''] = FORM.exec(sticky) ?? failForm(option, sticky);
  if (kind === undefined) return ({ address }) => address;
  if (kind === 'claim') return ({ principal }) => textOf(principal?.claims[name]);
  if (!TOKEN.test(name)) failForm(option, sticky);
  if (kind === 'cookie') return ({ headers }) => cookieIn(headers.cookie, name);
  const header = name.toLowerCase();
  return ({ headers }) => textOf(headers[header]);
}

function failForm(option: string, sticky: string): never {
  throw new TypeError(
    `${option} must be 'cookie:NAME', 'header:NAME', 'claim:NAME' or 'address'; got ${shown(sticky)}`,
  );
}

/** Gives the value of a claim or a header as text. One that is empty or an object is no key. */
function textOf(value: unknown): string | undefined {
  if (typeof value === 'string') return value === '' ? undefined : value;
  return typeof value === 'number' || typeof value === 'boolean' ? String(value) : undefined;
}

/** Finds the value of the first cookie with the name, without reading the others. */
function cookieIn(header: string | undefined, name: string): string | undefined {
  if (header === undefined) return undefined;
  const start = `${name}=`;
  for (const pair of header.split(';')) {
    const cookie = pair.trim();
    if (cookie.startsWith(start)) return textOf(cookie.slice(start.length));
  }
  return undefined;
}
