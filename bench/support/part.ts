import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';

/**
 * A part of a benchmark in a process of its own, whose script calls `play`. It ends with the process that started it,
 * however that ends.
 */
export class Part {
  readonly #child: ChildProcess;
  readonly #exited: Promise<unknown>;

  private constructor(child: ChildProcess) {
    this.#child = child;
    this.#exited = once(child, 'exit');
  }

  /** Resolves when it is ready. */
  static async start(script: URL, task: unknown, execArgv: string[] = []): Promise<Part> {
    const part = new Part(fork(script, [JSON.stringify(task)], { execArgv }));
    await part.#message();
    return part;
  }

  async ask<T>(question: string): Promise<T> {
    this.#child.send(question);
    return (await this.#message()) as T;
  }

  async end(): Promise<void> {
    if (this.#child.connected) this.#child.disconnect();
    await this.#exited;
  }

  async #message(): Promise<unknown> {
    const exited = this.#exited.then(() => {
      throw new Error(`${this.#child.spawnargs.join(' ')} ended early`);
    });
    const [message] = (await Promise.race([once(this.#child, 'message'), exited])) as [unknown];
    return message;
  }
}

/** The other side of a Part: prepares for its task, then responds to questions. */
export async function play<Task>(
  prepare: (task: Task) => Promise<Record<string, () => unknown>>,
): Promise<void> {
  process.on('disconnect', () => process.exit());
  const answers = await prepare(JSON.parse(process.argv[2]!));
  process.on('message', async (question: string) => process.send!((await answers[question]!()) ?? null));
  process.send!('ready');
}
