import type { Writable } from 'node:stream';
import { printable, printableJson } from './printable.ts';

/** Writes what happens to standard error: for people, or as a line of JSON for programs. */
export class GatewayLog {
  readonly #stream: Writable;
  readonly #json: boolean;

  constructor(stream: Writable, json: boolean) {
    this.#stream = stream;
    this.#json = json;
  }

  info(message: string): void {
    this.#write('info', message);
  }

  warn(message: string): void {
    this.#write('warn', message);
  }

  #write(level: 'info' | 'warn', message: string): void {
    const time = new Date().toISOString();
    // A line of a message stays a line: it may list what is wrong with a file.
    const text = `${time} ${level}: ${message.split('\n').map(printable).join('\n')}`;
    this.#stream.write(`${this.#json ? printableJson({ time, level, message }) : text}\n`);
  }
}
