import type { Document, LineCounter, Node } from 'yaml';
import { GatewayConfigError } from '../../errors.ts';
import { importPeer } from '../import-peer.ts';
import type { Path } from './problems.ts';

/** Aliases of a file, each of which may stand for a large part: more would fill the memory. */
const MAX_ALIASES = 100;

/** The values of a text, and the lines in which they are. */
export interface ParsedText {
  readonly value: unknown;
  /** Gives the line of an option, from 1 on; of one that is missing, the line of the object. */
  lineOf(path: Path): number | undefined;
}

/**
 * Parses YAML, of which JSON is a part. Duplicate names, tags that are not known and several documents
 * are errors.
 *
 * @throws GatewayConfigError that tells the line of each error; or that the package yaml is missing
 */
export async function parseYaml(text: string, file: string): Promise<ParsedText> {
  const yaml = await importPeer('', 'yaml', () => import('yaml'));
  const lines = new yaml.LineCounter();
  try {
    const document = yaml.parseDocument(text, { lineCounter: lines, prettyErrors: false, uniqueKeys: true });
    const errors = [...document.errors, ...document.warnings];
    if (errors.length > 0) {
      const problems = errors.map(({ pos, message }) => ({
        path: '',
        line: lines.linePos(pos[0]).line,
        reason: message,
      }));
      throw new GatewayConfigError(problems, { file });
    }
    const value: unknown = document.toJS({ maxAliasCount: MAX_ALIASES });
    return { value, lineOf: (path) => findLine(yaml, document, path, lines) };
  } catch (cause) {
    if (cause instanceof GatewayConfigError) throw cause;
    // Too many aliases, or too many brackets for the stack.
    throw new GatewayConfigError([{ path: '', reason: (cause as Error).message }], { file, cause });
  }
}

type Yaml = typeof import('yaml');

function findLine(yaml: Yaml, document: Document, path: Path, lines: LineCounter): number | undefined {
  let node = document.contents as Node | null;
  let found = node;
  for (const part of path) {
    const holder = yaml.isAlias(node) ? node.resolve(document) : node;
    if (yaml.isMap(holder)) {
      const pair = holder.items.find(({ key }) => (yaml.isScalar(key) ? String(key.value) : key) === part);
      if (pair === undefined) break;
      // The name is where a reader looks, and a value may be missing.
      found = pair.key as Node;
      node = pair.value as Node | null;
    } else if (yaml.isSeq(holder)) {
      node = (holder.items[part as number] ?? null) as Node | null;
      found = node ?? found;
    }
  }
  const start = found?.range?.[0];
  return start === undefined ? undefined : lines.linePos(start).line;
}
