import { Rejection } from '../problem.ts';

/** The path of a request in the one form in which it is routed, authorised, counted and forwarded. */
export interface CanonicalPath {
  readonly path: string;
  /** Why only a route with `rawPath` may take the path; undefined for most paths. */
  readonly ambiguity: string | undefined;
}

/** Segments of plain characters, none of which begins with a dot: most paths, which stay as they are. */
const PLAIN = /^(?:\/(?!\.)[\w.~!$&'()*+,:=@-]+)*\/?$/;
/** The characters that a path may have as they are: RFC 3986, section 3.3. */
const ALLOWED = /^[\w.~!$&'()*+,:;=@/%-]*$/;
/** Characters of which the escaped and the plain form mean the same: RFC 3986, section 2.3. */
const UNRESERVED = /[\w.~-]/;
const ESCAPE = /%([\da-f]{2})?/gi;
/** A segment that a server may read as a step up once it has cut off a parameter, or a space. */
const DOTS_WITH_SUFFIX = /\/\.{1,2}(?:;|%3B|%20)/;
const BEYOND_ASCII = /%[89A-F]/;
const DOT_SEGMENT = /\/\.{1,2}(?:\/|$)/;

/**
 * Brings the path of a request into its canonical form: unreserved characters unescaped, other
 * escapes in upper case, and several slashes as one. Two servers that read a path differently are
 * how a request slips past a check, so a path with a second meaning is rejected, or marked as
 * ambiguous where a route may have a use for it.
 *
 * @param raw the path as it came, without the query
 * @throws Rejection 400 for a path that has no place on any route: with dot segments, escaped
 *   control characters, or characters that no path may have
 */
export function toCanonicalPath(raw: string): CanonicalPath {
  if (PLAIN.test(raw)) return { path: raw, ambiguity: undefined };
  if (!raw.startsWith('/') || !ALLOWED.test(raw)) throw badPath('has a character that no path may have');
  const path = raw.replace(ESCAPE, normalizeEscape).replace(/\/{2,}/g, '/');
  if (DOT_SEGMENT.test(path)) throw badPath('has a dot segment');
  return { path, ambiguity: findAmbiguity(path) };
}

function normalizeEscape(text: string, digits: string | undefined): string {
  if (digits === undefined) throw badPath('has a percent sign that begins no escape');
  const code = Number.parseInt(digits, 16);
  if (code < 0x20 || code === 0x7f) throw badPath('has an escaped control character');
  const character = String.fromCharCode(code);
  return code < 0x80 && UNRESERVED.test(character) ? character : text.toUpperCase();
}

function findAmbiguity(path: string): string | undefined {
  if (path.includes('%2F')) return 'has an escaped slash';
  if (path.includes('%5C')) return 'has an escaped backslash';
  if (/%25[\dA-F]{2}/i.test(path)) return 'is escaped twice';
  if (DOTS_WITH_SUFFIX.test(path)) return 'has a dot segment with a parameter or a space';
  if (BEYOND_ASCII.test(path) && !isUtf8(path)) return 'has an escape that is not UTF-8';
  return undefined;
}

/** Overlong forms count as malformed: a lenient decoder finds dots and slashes in them. */
function isUtf8(path: string): boolean {
  try {
    decodeURIComponent(path);
    return true;
  } catch {
    return false;
  }
}

/** Creates the rejection of a path. */
export function badPath(how: string): Rejection {
  return new Rejection(400, 'bad-path', `The path of the request ${how}.`);
}
