import { Rejection } from '../problem.ts';

/** Where a request is for, as its first line says. */
export interface RequestTarget {
  /** As it was written, without the query; `*` for a request that means the server as a whole. */
  readonly path: string;
  /** With its question mark; empty if there is none. */
  readonly search: string;
  /** The host of a target in absolute form, which then takes the place of `Host`. */
  readonly authority: string | undefined;
}

const ABSOLUTE = /^https?:\/\/([^/?]+)(.*)$/i;
/** Visible ASCII without the number sign, which begins a fragment, and the backslash. */
const VISIBLE = /^[\x21\x22\x24-\x5b\x5d-\x7e]*$/;

/**
 * Reads the target of a request, in origin form or in absolute form (RFC 9112, section 3.2.2). The
 * host of the latter never chooses where the request is sent.
 *
 * @throws Rejection 400
 */
export function parseTarget(target: string, method: string): RequestTarget {
  if (!VISIBLE.test(target)) {
    throw new Rejection(400, 'bad-target', 'The target has a fragment, a backslash or an invalid character.');
  }
  if (target.startsWith('/') || (target === '*' && method === 'OPTIONS')) return split(target, undefined);
  const [, authority, rest] = ABSOLUTE.exec(target) ?? [];
  if (authority === undefined || rest === undefined)
    throw new Rejection(400, 'bad-target', 'The target is neither a path nor an absolute URL.');
  return split(rest.startsWith('/') ? rest : `/${rest}`, authority);
}

function split(target: string, authority: string | undefined): RequestTarget {
  const query = target.indexOf('?');
  if (query === -1) return { path: target, search: '', authority };
  return { path: target.slice(0, query), search: target.slice(query), authority };
}
