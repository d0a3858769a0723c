import type { LogFields, LogLevel } from './logger.ts';

/** Milliseconds within which lines of one kind are one line. */
const PERIOD = 10_000;
/** The most keys of one emitter that are counted by themselves. */
const MAX_KEYS = 100;

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

  add(source: object, key: string, entry: Entry): void {
    let bursts = this.#bySource.get(source);
    if (bursts === undefined) {
      bursts = new Map();
      this.#bySource.set(source, bursts);
    }
    const counted = bursts.has(key) || bursts.size < MAX_KEYS ? key : 'others';
    const burst = bursts.get(counted);
    if (burst === undefined) this.#begin(bursts, counted, entry);
    else {
      burst.latest = entry;
      burst.count++;
    }
  }

  /** Writes what was counted. */
  end(): void {
    for (const burst of this.#bursts) {
      clearInterval(burst.timer);
      this.#flush(burst);
    }
    this.#bursts.clear();
  }

  #begin(bursts: Map<string, Burst>, key: string, entry: Entry): void {
    const timer = setInterval(() => {
      if (this.#flush(burst)) return;
      clearInterval(timer);
      bursts.delete(key);
      this.#bursts.delete(burst);
    }, PERIOD).unref();
    const burst: Burst = { latest: entry, count: 1, timer };
    bursts.set(key, burst);
    this.#bursts.add(burst);
    this.#flush(burst);
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
