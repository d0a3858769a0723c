/** Finds the blocks of code in a Markdown page, and the comments `<!-- ts … -->`. */

/** A line of a block, and its number in the page. */
export interface Line {
  readonly text: string;
  readonly line: number;
}

export interface DocBlock {
  /** The heading that it stands under; undefined above the first. */
  readonly heading: string | undefined;
  /** The text before its fence: an indent, and the marks of lists and quotations. */
  readonly before: string;
  /** Its fence; `<!--` for a comment. */
  readonly marks: string;
  /** The rest of its first line. */
  readonly info: string;
  /** The number of its first line. */
  readonly line: number;
  /** Its content, without the indent of the fence; at least one line. */
  readonly lines: readonly Line[];
  readonly ends: boolean;
}

/** A fence, in a list or a quotation too. */
const FENCE = /^(?<before>[\s>]*(?:(?:[-*+]|\d+[.)])\s+)*)(?<marks>`{3,}|~{3,})(?<info>[^`]*)$/;
const COMMENT = /^(?<before>)(?<marks><!--) (?<info>ts)$/;
const HEADING = /^#+ (?<title>.*)$/;

export function blocksOf(markdown: string): DocBlock[] {
  const texts = markdown.split('\n').map((text) => text.trimEnd());
  const blocks: DocBlock[] = [];
  let heading: string | undefined;
  for (let index = 0; index < texts.length; index++) {
    heading = HEADING.exec(texts[index]!)?.groups?.title ?? heading;
    const { before, marks, info } = (COMMENT.exec(texts[index]!) ?? FENCE.exec(texts[index]!))?.groups ?? {};
    if (marks === undefined) continue;
    const line = index + 1;
    do index++;
    while (index < texts.length && !isEnd(texts[index]!, marks));
    const lines = linesOf(texts.slice(line, index), line + 1, before!);
    blocks.push({ heading, before: before!, marks, info: info!, line, lines, ends: index < texts.length });
  }
  return blocks;
}

/**
 * Tells what a block is to the programs of its page: what it says behind `ts`, `printed` or, for a comment, `unseen`;
 * undefined if it is nothing to them.
 */
export function kindOf({ before, marks, info }: DocBlock): string | undefined {
  if (marks === '<!--') return 'unseen';
  if (before.trim() !== '' || marks !== '```') return undefined;
  if (info === 'text printed') return 'printed';
  return /^ts(?!\S)/.test(info) ? info.slice(2).trim() : undefined;
}

function isEnd(text: string, marks: string): boolean {
  if (marks === '<!--') return text === '-->';
  const end = FENCE.exec(text)?.groups;
  return end !== undefined && end.marks!.startsWith(marks) && end.info === '';
}

function linesOf(texts: readonly string[], first: number, indent: string): Line[] {
  const code = texts.map((text) => (text.startsWith(indent) ? text.slice(indent.length) : text.trimStart()));
  return code
    .join('\n')
    .trimEnd()
    .split('\n')
    .map((text, offset) => ({ text, line: first + offset }));
}
