/** What is not sure to be one visible character: control and formatting characters, marks, all spaces but the usual one. */
const UNSURE = /[^\p{L}\p{N}\p{P}\p{S} ]/gu;

/** Text of strangers, made unable to be anything but text to a terminal: `\u{1b}` stands for an escape character. */
export function printable(text: string): string {
  return text.replace(UNSURE, (character) => `\\u{${character.codePointAt(0)!.toString(16)}}`);
}

/** The same for JSON, which stays the same JSON: what is escaped can only be within its strings. */
export function printableJson(value: unknown, indent?: number): string {
  return JSON.stringify(value, undefined, indent).replace(/[^\p{L}\p{N}\p{P}\p{S} \n]/gu, (character) =>
    character
      .split('')
      .map((unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`)
      .join(''),
  );
}

/** At most so many characters. */
export function clip(text: string, length: number): string {
  const characters = [...text];
  return characters.length > length ? `${characters.slice(0, Math.max(0, length - 1)).join('')}…` : text;
}

/** A time span as people say it. */
export function span(milliseconds: number): string {
  const seconds = Math.max(0, milliseconds) / 1_000;
  if (seconds < 9.95) return `${seconds.toFixed(1)} s`;
  if (seconds < 120) return `${Math.round(seconds)} s`;
  if (seconds < 7_200) return `${Math.round(seconds / 60)} min`;
  if (seconds < 172_800) return `${Math.round(seconds / 3_600)} h`;
  return `${Math.round(seconds / 86_400)} d`;
}
