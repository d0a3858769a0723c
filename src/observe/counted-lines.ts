import type { LogFields, LogLevel } from './logger.ts';

/** Milliseconds within which lines of one kind are one line. */
const PERIOD = 10_000;
/** The most keys of one emitter that are counted by themselves; the others of an event are counted together. */
const MAX_KEYS = 100;

/** Holds those that may have lines which are counted and not yet written. */
const unwritten = new Set<CountedLines>();

/** The last lines before an exit may say why it came. */
function writeAll(): void {
  for (const lines of unwritten) lines.end();
}

interface Entry {
  readonly level: LogLevel;
  readonly fields: LogFields;
  readonly message: string;
}

/** Lines of one kind, from the first one until none has come for a period. */
interface Burst {
  /** The latest line that was not written. */
  latest: Entry | undefined;
  /** Lines since the latest one that was written. */
  count: number;
  timer: NodeJS.Timeout;
}

/**
 * Writes the first of many lines of a kind at once, and the others as one line every ten seconds with
 * their number as `count`, so that a service that sheds a thousand requests a second does not add to
 * its load.
 */
export class CountedLines {
  readonly #write: (level: LogLevel, fields: LogFields, message: string) => void;
  readonly #bySource = new WeakMap<object, Map<string, Burst>>();
  readonly #bursts = new Set<Burst>();

  constructor(write: (level: LogLevel, fields: LogFields, message: string) => void) {
    this.#write = write;
  }

  add(source: object, event: string, key: string, entry: Entry): void {
    let bursts = this.#bySource.get(source);
    if (bursts === undefined) {
      bursts = new Map();
      this.#bySource.set(source, bursts);
    }
    const own = keyOf(event, key);
    const counted = bursts.has(own) || bursts.size < MAX_KEYS ? own : event;
    const burst = bursts.get(counted);
    if (burst === undefined) this.#begin(bursts, counted, entry);
    else {
      burst.latest = entry;
      burst.count++;
    }
  }

  /**
   * Writes what was counted of the event with the key, which may be among the others of the event; the
   * next line with it is the first one again.
   */
  finish(source: object, event: string, key: string): void {
    const bursts = this.#bySource.get(source);
    if (bursts === undefined) return;
    for (const counted of [keyOf(event, key), event]) {
      const burst = bursts.get(counted);
      if (burst === undefined) continue;
      bursts.delete(counted);
      this.#flush(burst);
      this.#drop(burst);
    }
  }

  /** Writes what was counted. */
  end(): void {
    for (const burst of this.#bursts) {
      this.#flush(burst);
      this.#drop(burst);
    }
  }

  #begin(bursts: Map<string, Burst>, key: string, entry: Entry): void {
    const timer = setInterval(() => {
      if (this.#flush(burst)) return;
      bursts.delete(key);
      this.#drop(burst);
    }, PERIOD).unref();
    const burst: Burst = { latest: entry, count: 1, timer };
    bursts.set(key, burst);
    this.#bursts.add(burst);
    if (unwritten.size === 0) process.on('exit', writeAll);
    unwritten.add(this);
    this.#flush(burst);
  }

  #drop(burst: Burst): void {
    clearInterval(burst.timer);
    this.#bursts.delete(burst);
    if (this.#bursts.size === 0 && unwritten.delete(this) && unwritten.size === 0)
      process.off('exit', writeAll);
  }

  /** Writes the latest line with the count; false if there is none. */
  #flush(burst: Burst): boolean {
    const { latest, count } = burst;
    if (latest === undefined) return false;
    burst.latest = undefined;
    burst.count = 0;
    this.#write(latest.level, { ...latest.fields, count }, latest.message);
    return true;
  }
}

/** Never the name of an event alone, with which its others are counted. */
function keyOf(event: string, key: string): string {
  return `${event} ${key}`;
}
