import { oneOf, validateOptions } from '../internal/validate.ts';

export const LEVELS = ['debug', 'info', 'warn', 'error'] as const;

export type LogLevel = (typeof LEVELS)[number];

/** The fields of a line: names, numbers and texts that are fit for logs. */
export type LogFields = Readonly<Record<string, unknown>>;

/** A logger as `observe` needs it. pino is one as it is. */
export type Logger = Readonly<Record<LogLevel, (fields: LogFields, message: string) => unknown>>;

export interface ConsoleLoggerOptions {
  /** The least level that is written. Default `info`. */
  level?: LogLevel | undefined;
}

/**
 * Makes a logger that writes to the console, for programs that have none yet.
 *
 * @throws TypeError that names the option that is not allowed
 * @example
 * observe(client, { logger: fromConsole() });
 */
export function fromConsole(options: ConsoleLoggerOptions = {}): Logger {
  validateOptions('fromConsole()', options, { level: oneOf(...LEVELS) });
  const least = LEVELS.indexOf(options.level ?? 'info');
  const at = (level: LogLevel) => (fields: LogFields, message: string) => {
    if (LEVELS.indexOf(level) < least) return;
    console[level](`holdfast ${level}: ${message}${formatFields(fields)}`);
  };
  return { debug: at('debug'), info: at('info'), warn: at('warn'), error: at('error') };
}

function formatFields(fields: LogFields): string {
  return Object.entries(fields)
    .filter(([, value]) => value !== undefined)
    .map(([name, value]) => ` ${name}=${formatValue(value)}`)
    .join('');
}

/** Quotes a text that is not one plain word, so that it can end neither the value nor the line. */
function formatValue(value: unknown): string {
  if (typeof value === 'string' && /^[\w./:@-]+$/.test(value)) return value;
  return JSON.stringify(value) ?? String(value);
}
