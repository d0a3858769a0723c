import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { onTestFinished } from 'vitest';

export interface ConsumerOptions {
  redis: string;
  keyPrefix: string;
  /** Milliseconds. */
  lease: number;
  maxAttempts: number;
  /**
   * `hang`: no handler ends. `die`: an event of the aggregate `poison` ends the process. `block`: each
   * handler blocks the event loop for three leases.
   */
  behave: 'hang' | 'die' | 'block';
}

interface Message {
  begun?: number;
  handled?: number;
  lost?: number;
  owned?: number;
}

/** A process that handles events, to be killed. */
export class EventConsumer {
  readonly begun: number[] = [];
  readonly handled: number[] = [];
  readonly lost: number[] = [];
  owned = 0;
  readonly #child: ChildProcess;
  readonly #exited: Promise<unknown>;

  constructor(options: ConsumerOptions) {
    this.#child = fork(new URL('./event-consumer.ts', import.meta.url), [JSON.stringify(options)]);
    this.#exited = once(this.#child, 'exit');
    this.#child.on('message', ({ begun, handled, lost, owned }: Message) => {
      if (begun !== undefined) this.begun.push(begun);
      if (handled !== undefined) this.handled.push(handled);
      if (lost !== undefined) this.lost.push(lost);
      this.owned = owned ?? this.owned;
    });
    onTestFinished(() => this.kill());
  }

  /** Resolves when the process has ended, of whatever. */
  async exited(): Promise<void> {
    await this.#exited;
  }

  /** Ends it with SIGKILL, as a crash would. */
  async kill(): Promise<void> {
    this.#child.kill('SIGKILL');
    await this.#exited;
  }
}
