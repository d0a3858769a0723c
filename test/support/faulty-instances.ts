import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';

/**
 * The fault of an instance: with `refused` nobody accepts its connections, with `reset` they are accepted and cut, with
 * `hang` there is no response at all, and a number is the status of the response.
 */
export type Fault = 'refused' | 'reset' | 'hang' | number;

export interface Behaviour {
  /** Default: none, the instance is well. */
  fault?: Fault;
  /** The share of the requests that have a fault which is a status. Default 1. */
  share?: number;
  /** Milliseconds until a response. Default 0. */
  latency?: number;
}

export type Question =
  | { ask: 'add'; count: number; behaviour: Behaviour }
  | { ask: 'set'; ids: readonly string[]; behaviour: Behaviour }
  | { ask: 'slow'; id: string; latency: number }
  | { ask: 'received'; ids: readonly string[] };

/**
 * Servers that fail as they are told to, in a process of their own. Each is known as `host:port`, which is its id in a
 * StaticServiceDiscovery too, and the body of its responses.
 */
export class FaultyInstances {
  readonly #child: ChildProcess;
  readonly #exited: Promise<unknown>;
  readonly #answers = new Map<number, (answer: unknown) => void>();
  #asked = 0;

  /** @param seed decides which requests have a fault that is that of a share only */
  constructor(seed: number) {
    this.#child = fork(new URL('./faulty-instances-process.ts', import.meta.url), [String(seed)]);
    this.#exited = once(this.#child, 'exit');
    this.#child.on('message', ([question, answer]: [number, unknown]) => {
      this.#answers.get(question)!(answer);
      this.#answers.delete(question);
    });
  }

  /** Starts servers; gives their ids. */
  add(count: number, behaviour: Behaviour = {}): Promise<string[]> {
    return this.#ask({ ask: 'add', count, behaviour });
  }

  /** Changes what they do from now on. A server with `refused` or `reset` cuts its connections, as a crash would. */
  set(ids: readonly string[], behaviour: Behaviour): Promise<void> {
    return this.#ask({ ask: 'set', ids, behaviour });
  }

  /** Makes the next response of one of them take `latency` milliseconds. */
  slow(id: string, latency: number): Promise<void> {
    return this.#ask({ ask: 'slow', id, latency });
  }

  /** How many requests, or connections that were reset, each of them has had so far. */
  received(ids: readonly string[]): Promise<number[]> {
    return this.#ask({ ask: 'received', ids });
  }

  async end(): Promise<void> {
    this.#child.disconnect();
    await this.#exited;
  }

  #ask<T>(question: Question): Promise<T> {
    const number = this.#asked++;
    return new Promise((resolve) => {
      this.#answers.set(number, resolve as (answer: unknown) => void);
      this.#child.send([number, question]);
    });
  }
}
