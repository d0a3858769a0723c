import { emitWarning } from '../internal/emitter.ts';
import type { Observation, ObservedEvent } from '../internal/observation.ts';
import { CountedLines } from './counted-lines.ts';
import type { Line } from './line.ts';
import { LINES } from './lines.ts';
import type { LogFields, Logger, LogLevel } from './logger.ts';

/** Writes the events that it sees to a logger, which cannot disturb their emitters. */
export class EventLog implements Observation {
  readonly #logger: Logger;
  readonly #counted = new CountedLines((...entry) => this.#write(...entry));
  #over = false;
  #warned = false;

  constructor(logger: Logger) {
    this.#logger = logger;
  }

  get over(): boolean {
    return this.#over;
  }

  get audience(): object {
    return this.#logger;
  }

  wants(kind: string, name: PropertyKey): boolean {
    return findLine(kind, name) !== undefined;
  }

  see(event: ObservedEvent): void {
    const { source, kind, name, payload } = event;
    const line = findLine(kind, name);
    if (line === undefined) return;
    try {
      const level = typeof line.level === 'string' ? line.level : line.level(payload);
      if (level === undefined) return;
      const fields = buildFields(event, line);
      const key = line.countBy?.(payload) ?? '';
      if (line.ends !== undefined) this.#counted.finish(source, line.ends, key);
      if (line.countBy === undefined) this.#write(level, fields, line.message);
      else this.#counted.add(source, String(name), key, { level, fields, message: line.message });
    } catch (error) {
      // An error of a user may throw wherever it is looked at.
      this.#warn(error);
    }
  }

  /** Writes what was counted, and nothing after that. */
  end(): void {
    this.#counted.end();
    this.#over = true;
  }

  #write(level: LogLevel, fields: LogFields, message: string): void {
    try {
      const result = this.#logger[level](fields, message);
      if (result instanceof Promise) result.catch((error) => this.#warn(error));
    } catch (error) {
      this.#warn(error);
    }
  }

  #warn(error: unknown): void {
    if (!this.#warned) emitWarning(error, 'A line could not be logged. There is one warning of this.');
    this.#warned = true;
  }
}

function findLine(kind: string, name: PropertyKey): Line<unknown> | undefined {
  return LINES[kind]?.[name as string];
}

function buildFields({ source, kind, name, payload, labels }: ObservedEvent, line: Line<unknown>): LogFields {
  const { name: own } = source as { name?: unknown };
  return {
    component: kind,
    event: String(name),
    // Not 'name', which is that of the program with many loggers.
    ...(typeof own === 'string' && { componentName: own }),
    ...labels,
    ...line.fields(payload),
  };
}
