import type { AttemptError } from '../events/event-bus.ts';

/**
 * Matches what may not be one visible character: control and formatting characters, marks, all
 * spaces but the usual one.
 */
const UNSURE = /[^\p{L}\p{N}\p{P}\p{S} ]/gu;

/** The most characters that are shown of an error. */
const LONGEST_ERROR = 200;

/**
 * Escapes text of strangers, so that a terminal takes it as nothing but text: `\u{1b}` stands for
 * an escape character.
 */
export function printable(text: string): string {
  return text.replace(UNSURE, (character) => `\\u{${character.codePointAt(0)!.toString(16)}}`);
}

/**
 * Escapes JSON like `printable`. It stays the same JSON: the escaped characters are within strings.
 */
export function printableJson(value: unknown, indent?: number): string {
  return JSON.stringify(value, undefined, indent).replace(/[^\p{L}\p{N}\p{P}\p{S} \n]/gu, (character) =>
    character
      .split('')
      .map((unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`)
      .join(''),
  );
}

/** Cuts text to at most `length` characters. */
export function clip(text: string, length: number): string {
  const characters = [...text];
  return characters.length > length ? `${characters.slice(0, Math.max(0, length - 1)).join('')}…` : text;
}

/** Shows text of strangers, cut to a length. */
export function show(text: string, length: number): string {
  return clip(printable(text), length);
}

/** Formats a time, which may be none: strangers may have written it. */
export function time(milliseconds: number): string {
  const date = new Date(milliseconds);
  return Number.isNaN(date.getTime()) ? '-' : date.toISOString();
}

/** Describes an error in one cell of a table. */
export function errorText({ name, message, code }: Pick<AttemptError, 'name' | 'message' | 'code'>): string {
  return show(`${name}: ${message}${code === undefined ? '' : ` (${code})`}`, LONGEST_ERROR);
}

/** Formats a time span for people. */
export function span(milliseconds: number): string {
  const seconds = Math.max(0, milliseconds) / 1_000;
  if (seconds < 9.95) return `${seconds.toFixed(1)} s`;
  if (seconds < 120) return `${Math.round(seconds)} s`;
  if (seconds < 7_200) return `${Math.round(seconds / 60)} min`;
  if (seconds < 172_800) return `${Math.round(seconds / 3_600)} h`;
  return `${Math.round(seconds / 86_400)} d`;
}
