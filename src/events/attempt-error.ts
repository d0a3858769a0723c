import { shown } from '../internal/shown.ts';
import type { AttemptError } from './event-bus.ts';

/** The characters of an error's message that are kept. */
const MAX_MESSAGE = 1_000;

/** Describes how an attempt to handle an event failed, in a form that can be stored. */
export function createAttemptError(error: unknown, attempt: number): AttemptError {
  return { attempt, at: Date.now(), ...describe(error) };
}

function describe(error: unknown): Pick<AttemptError, 'name' | 'message' | 'code'> {
  if (typeof error === 'string') return { name: 'Error', message: shorten(error) };
  try {
    const { name, message, code } = error as Partial<NodeJS.ErrnoException>;
    if (typeof name === 'string' && typeof message === 'string') {
      const described = { name: shorten(name), message: shorten(message) };
      return typeof code === 'string' ? { ...described, code: shorten(code) } : described;
    }
  } catch {
    // It is undefined or null, or throws on every access.
  }
  return { name: 'Error', message: shown(error) };
}

function shorten(text: string): string {
  return text.length > MAX_MESSAGE ? `${text.slice(0, MAX_MESSAGE)}…` : text;
}
