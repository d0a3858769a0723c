import { type ChildProcess, fork } from 'node:child_process';
import { on, once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { onTestFinished } from 'vitest';
import type { OrchestratorOptions, Report, StartMessage } from './orchestrator.ts';
import type { Order } from './order-saga.ts';
import type { ServiceOptions } from './service.ts';

/** Node's compile cache halves the time that a process takes to start. */
const NODE_COMPILE_CACHE = fileURLToPath(
  new URL('../../../node_modules/.cache/compiled-by-tests', import.meta.url),
);

/** A process that ends with the test. */
class TestProcess {
  protected readonly child: ChildProcess;
  readonly #exited: Promise<unknown>;
  readonly #messages: AsyncIterator<unknown[]>;

  constructor(program: string, options: unknown) {
    this.child = fork(new URL(program, import.meta.url), [JSON.stringify(options)], {
      env: { NODE_COMPILE_CACHE, ...process.env },
    });
    this.#exited = once(this.child, 'exit');
    this.#messages = on(this.child, 'message', { close: ['exit'] })[Symbol.asyncIterator]();
    onTestFinished(() => this.kill());
  }

  async kill(): Promise<void> {
    this.child.kill('SIGKILL');
    await this.#exited;
  }

  /** Resolves when it has died, as it was told to. */
  async died(): Promise<void> {
    await this.#exited;
    const { signalCode, exitCode } = this.child;
    if (signalCode !== 'SIGKILL') throw new Error(`the process ended by itself, with ${exitCode}`);
  }

  /** Gives its next message; undefined if it has died, as it was told to. */
  async receive(): Promise<unknown> {
    const { done, value } = await this.#messages.next();
    if (done !== true) return value[0];
    await this.died();
    return undefined;
  }
}

export class OrchestratorProcess extends TestProcess {
  static async launch(options: OrchestratorOptions): Promise<OrchestratorProcess> {
    const launched = new OrchestratorProcess('./orchestrator.ts', options);
    await launched.receive();
    return launched;
  }

  /** Lets it start orders, at a time if need be. Resolves when they are started, or it has died. */
  async start(orders: readonly Order[], at = 0): Promise<void> {
    this.child.send({ orders, at } satisfies StartMessage);
    await this.receive();
  }

  /** Waits until the sagas of its orders have ended; undefined if it has died before. */
  async report(): Promise<Report | undefined> {
    return (await this.receive()) as Report | undefined;
  }

  freeze(): void {
    this.child.kill('SIGSTOP');
  }

  thaw(): void {
    this.child.kill('SIGCONT');
  }
}

export class ServiceProcess extends TestProcess {
  static async launch(options: ServiceOptions): Promise<ServiceProcess> {
    const launched = new ServiceProcess('./service.ts', options);
    await launched.receive();
    return launched;
  }
  /** Counts the statements that it has sent to its database so far. */
  async countStatements(): Promise<number> {
    this.child.send('count');
    return (await this.receive()) as number;
  }
}
