import { readFileSync } from 'node:fs';

/** A program that README.md shows. */
export interface ReadmeExample {
  /** The heading that it stands under, and which of them it is there. */
  readonly name: string;
  readonly code: string;
  /** The lines that it prints, as its own comments say: `console.log(…); // this`. */
  readonly prints: readonly string[];
}

const FENCE = /^(#+ [^\n]*)$|^```ts\n(.*?)^```$/gms;
const CLOSING = 'await client.close();';

/**
 * The blocks of TypeScript in a Markdown text, as a reader runs them: a block that uses the `client` of the one before is
 * put where that closes it.
 */
export function examplesIn(markdown: string): ReadmeExample[] {
  const examples: ReadmeExample[] = [];
  let heading = '';
  let program: string | undefined;
  for (const [, title, block] of markdown.matchAll(FENCE)) {
    if (block === undefined) {
      heading = title!.replace(/^#+ /, '');
      continue;
    }
    const continues = /^[^/\n]*\bclient\b/m.test(block) && !block.includes('const client =');
    if (continues && program === undefined)
      throw new Error(`no example before this one has a client:\n${block}`);
    const code = continues ? program!.replace(CLOSING, () => `${block}\n${CLOSING}`) : block;
    if (block.includes(CLOSING)) program = block;
    const number = examples.filter(({ name }) => name.startsWith(`${heading}, `)).length + 1;
    const prints = Array.from(code.matchAll(/console\.log\(.*\); \/\/ (.*)$/gm), ([, output]) => output!);
    examples.push({ name: `${heading}, example ${number}`, code, prints });
  }
  return examples;
}

/** The programs of README.md, each with ports of its own from `port` on. */
export function readmeExamples(port: number): ReadmeExample[] {
  const examples = examplesIn(readFileSync(new URL('../README.md', import.meta.url), 'utf8'));
  let next = port;
  return examples.map(({ code, ...rest }) => {
    const ports = new Map<string, string>();
    const own = code.replaceAll(/\b80\d\d\b/g, (shown) => {
      if (!ports.has(shown)) ports.set(shown, String(next++));
      return ports.get(shown)!;
    });
    return { ...rest, code: own };
  });
}
