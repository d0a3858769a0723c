import { type ConcurrencyLimit, SampleWindow } from '../../../src/policies/concurrency-limit.ts';

export interface ServerOptions {
  workers: number;
  /** Milliseconds that a worker takes for a call. */
  serviceTime?: () => number;
  /** Calls that may wait for a worker; a call beyond them is rejected in a millisecond. */
  queue?: number;
}

/**
 * A server with so many workers and a queue, first come first served, and callers that always make
 * as many calls at once as the limit or their own number allows. Time is virtual.
 */
export class ServerModel {
  now = 0;
  limit: number;
  callers = Infinity;
  workers: number;
  serviceTime: () => number;
  answered = 0;
  refused = 0;
  readonly #queueBound: number;
  readonly #algorithm: ConcurrencyLimit;
  readonly #window: SampleWindow;
  readonly #freeAt: number[] = [];
  readonly #underWay: { startedAt: number; endsAt: number; inFlight: number; dropped: boolean }[] = [];

  constructor(algorithm: ConcurrencyLimit, initialLimit: number, options: ServerOptions, window = 100) {
    this.#algorithm = algorithm;
    this.limit = initialLimit;
    this.workers = options.workers;
    this.serviceTime = options.serviceTime ?? (() => 20);
    this.#queueBound = options.queue ?? Infinity;
    this.#window = new SampleWindow(window);
  }

  run(milliseconds: number): number {
    const until = this.now + milliseconds;
    for (;;) {
      while (this.#underWay.length < Math.min(Math.floor(this.limit), this.callers)) this.#begin();
      const next = this.#underWay[0];
      if (next === undefined || next.endsAt > until) break;
      this.#underWay.shift();
      this.#end(next);
    }
    this.now = until;
    return this.limit;
  }

  #begin(): void {
    this.#freeAt.sort((a, b) => a - b);
    while (this.#freeAt.length > this.workers) this.#freeAt.shift();
    while (this.#freeAt.length < this.workers) this.#freeAt.unshift(0);
    const served = this.#underWay.filter((call) => !call.dropped).length;
    const dropped = served >= this.workers + this.#queueBound;
    let endsAt = this.now + 1;
    if (!dropped) {
      endsAt = Math.max(this.now, this.#freeAt[0]!) + this.serviceTime();
      this.#freeAt[0] = endsAt;
    }
    const call = { startedAt: this.now, endsAt, inFlight: this.#underWay.length + 1, dropped };
    const place = this.#underWay.findIndex((other) => other.endsAt > endsAt);
    this.#underWay.splice(place < 0 ? this.#underWay.length : place, 0, call);
  }

  #end(call: { startedAt: number; endsAt: number; inFlight: number; dropped: boolean }): void {
    this.now = call.endsAt;
    if (call.dropped) this.refused++;
    else this.answered++;
    const sample = this.#window.add(this.now - call.startedAt, call.inFlight, call.dropped, this.now);
    if (sample !== undefined) {
      this.limit = Math.max(1, Math.min(200, this.#algorithm.next(this.limit, sample)));
    }
  }
}
