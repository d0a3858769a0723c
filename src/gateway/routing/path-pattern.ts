import { shown } from '../../internal/shown.ts';
import { toCanonicalPath } from './canonical-path.ts';

/** A segment of the path of a route: its text, or the name of a parameter. */
export type PatternSegment =
  | { readonly kind: 'literal'; readonly text: string }
  | { readonly kind: 'parameter'; readonly name: string };

/** The path of a route, read. */
export interface PathPattern {
  readonly segments: readonly PatternSegment[];
  /** Whether it ends with `/*`, and takes all paths that begin like it. */
  readonly wildcard: boolean;
}

const PARAMETER = /^:([A-Za-z_]\w*)$/;

/**
 * Reads the path of a route, such as `/users/:userId` or `/shop/*`.
 *
 * @throws TypeError if it is malformed, or not in its canonical form
 */
export function parsePattern(path: string, option: string): PathPattern {
  if (!path.startsWith('/')) throw new TypeError(`${option} must start with a slash; got ${shown(path)}`);
  const wildcard = path.endsWith('/*');
  const texts = splitPath(wildcard ? path.slice(0, -2) : path);
  const segments = texts.map((text) => parseSegment(text, option));
  const names = segments.flatMap((segment) => (segment.kind === 'parameter' ? [segment.name] : []));
  const twice = names.find((name, index) => names.indexOf(name) !== index);
  if (twice !== undefined) throw new TypeError(`${option} has the parameter ':${twice}' twice`);
  return { segments, wildcard };
}

/** Splits a path into its segments. A slash at the end makes no segment. */
function splitPath(path: string): string[] {
  const inner = path.slice(1).replace(/\/$/, '');
  return inner === '' ? [] : inner.split('/');
}

function parseSegment(text: string, option: string): PatternSegment {
  if (text.startsWith(':')) {
    const name = PARAMETER.exec(text)?.[1];
    if (name === undefined)
      throw new TypeError(`${option} has ${shown(text)}, which is not the name of a parameter`);
    return { kind: 'parameter', name };
  }
  if (text.includes('*')) throw new TypeError(`${option} may have a '*' only as its last segment`);
  return { kind: 'literal', text: toCanonicalLiteral(text, option) };
}

/** Gives a literal as it appears in canonical paths: a route may name it in plain Unicode. */
function toCanonicalLiteral(text: string, option: string): string {
  try {
    const { path, ambiguity } = toCanonicalPath(`/${/[^\x21-\x7e]/.test(text) ? encodeURI(text) : text}`);
    if (ambiguity === undefined && path.length > 1) return path.slice(1);
  } catch {
    // The message below says it.
  }
  throw new TypeError(`${option} has the segment ${shown(text)}, which no request can have in its path`);
}

/** Builds the path for a service from the values of the parameters, and the rest of a wildcard. */
export type Rewrite = (values: readonly string[]) => string;

/**
 * Compiles the `rewrite` of a route: parameters by their names, and `*` for what the wildcard took.
 *
 * @throws TypeError if it names what the pattern does not have
 */
export function compileRewrite(rewrite: string, pattern: PathPattern, option: string): Rewrite {
  const target = parsePattern(rewrite, option);
  const names = pattern.segments.flatMap((segment) => (segment.kind === 'parameter' ? [segment.name] : []));
  if (target.wildcard && !pattern.wildcard)
    throw new TypeError(`${option} has a '*', and the path of the route has none`);
  const parts = target.segments.map((segment) => {
    if (segment.kind === 'literal') return segment.text;
    const index = names.indexOf(segment.name);
    if (index === -1)
      throw new TypeError(`${option} has ':${segment.name}', and the path of the route has not`);
    return index;
  });
  const endsWithSlash = rewrite.length > 1 && rewrite.endsWith('/');
  if (parts.every((part) => typeof part === 'string') && !target.wildcard) {
    const path = `/${parts.join('/')}${endsWithSlash ? '/' : ''}`;
    return () => path;
  }
  return (values) => {
    let path = '';
    for (const part of parts) path += `/${typeof part === 'string' ? part : values[part]}`;
    if (target.wildcard) return `${path}/${values[names.length]}`;
    return endsWithSlash ? `${path}/` : path;
  };
}

/** The beginnings in which the paths of a service differ from those of its clients. */
export interface PathView {
  readonly service: string;
  readonly client: string;
}

/**
 * Finds out how a path of a service looks to the clients of a route: `/users/7` is `/api/users/7` where
 * `/api/users/:id` becomes `/users/:id`. Gives undefined if more than the beginning differs.
 */
export function compilePathView(pattern: PathPattern, rewrite: string, option: string): PathView | undefined {
  const client = toTexts(pattern);
  const service = toTexts(parsePattern(rewrite, option));
  while (client.length > 0 && client.at(-1) === service.at(-1)) {
    client.pop();
    service.pop();
  }
  const isPlain = [...client, ...service].every((text) => text !== '*' && !text.startsWith(':'));
  return isPlain ? { service: toBeginning(service), client: toBeginning(client) } : undefined;
}

function toTexts({ segments, wildcard }: PathPattern): string[] {
  const texts = segments.map((segment) => (segment.kind === 'literal' ? segment.text : `:${segment.name}`));
  return wildcard ? [...texts, '*'] : texts;
}

function toBeginning(texts: readonly string[]): string {
  return texts.map((text) => `/${text}`).join('');
}
