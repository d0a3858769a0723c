/** The most characters that are shown of a text. */
const LONGEST = 200;

/** Matches what would end the quotes, or may not be a visible character: control and formatting characters. */
const ESCAPED = /['\\]|[^\p{L}\p{M}\p{N}\p{P}\p{S} ]/gu;

/** Matches what is shown of an object: data can have any text where a class has its name. */
const CLASS_NAME = /^[\w$]{1,100}$/;

const SHORT_ESCAPES: Readonly<Record<string, string>> = { '\n': '\\n', '\r': '\\r', '\t': '\\t' };

/** Gives any value as a message shows it: on one line, without control characters; long ones are cut. */
export function shown(value: unknown): string {
  if (typeof value === 'string') return quote(value.length > LONGEST ? `${value.slice(0, LONGEST)}…` : value);
  if (typeof value === 'bigint') return `${String(value).slice(0, LONGEST)}n`;
  if (typeof value === 'function') return 'a function';
  if (typeof value === 'object' && value !== null) return kindOf(value);
  if (typeof value === 'symbol') return `Symbol(${shown(value.description ?? '')})`;
  return String(value);
}

/** Names the kind of an object, and never its content. */
function kindOf(value: object): string {
  let name: unknown;
  try {
    if (Array.isArray(value)) return 'a list';
    name = value.constructor?.name;
  } catch {
    // A Proxy can throw on every access, and a revoked one does.
  }
  if (typeof name !== 'string' || name === 'Object' || !CLASS_NAME.test(name)) return 'an object';
  return `${/^[AEIOU]/.test(name) ? 'an' : 'a'} ${name}`;
}

function quote(text: string): string {
  return `'${text.replace(ESCAPED, escapeCharacter)}'`;
}

function escapeCharacter(character: string): string {
  if (character === "'" || character === '\\') return `\\${character}`;
  return SHORT_ESCAPES[character] ?? `\\u{${character.codePointAt(0)!.toString(16)}}`;
}
