import type { LogFields, LogLevel } from '../../src/index.ts';

/** A line as a logger has got it. */
export type RecordedLine = LogFields & { level: LogLevel; message: string };

/** A logger that keeps its lines. */
export class RecordedLog {
  readonly lines: RecordedLine[] = [];
  readonly debug = this.#write('debug');
  readonly info = this.#write('info');
  readonly warn = this.#write('warn');
  readonly error = this.#write('error');

  #write(level: LogLevel) {
    return (fields: LogFields, message: string) => void this.lines.push({ ...fields, level, message });
  }

  /** Gives the lines with this message. */
  of(message: string): RecordedLine[] {
    return this.lines.filter((line) => line.message === message);
  }

  /** Gives the messages, without those of debug. */
  get messages(): string[] {
    return this.lines.filter(({ level }) => level !== 'debug').map(({ message }) => message);
  }
}
