import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import pg from 'pg';
import { onTestFinished } from 'vitest';
import { fromPg, migrate } from '../../../src/postgres/index.ts';
import type { ConsumerOptions } from './consumer.ts';
import type { ServiceOptions } from './service.ts';

/** A process that handles events, and can be killed and started again. */
export class Consumer {
  readonly #options: ConsumerOptions;
  #child: ChildProcess | undefined = undefined;

  constructor(options: ConsumerOptions) {
    this.#options = options;
  }

  async start(): Promise<void> {
    this.#child = fork(new URL('./consumer.ts', import.meta.url), [JSON.stringify(this.#options)]);
    await once(this.#child, 'message');
  }

  async kill(): Promise<void> {
    if (this.#child !== undefined) await kill(this.#child);
  }
}

/** Starts consumers that end with the test. */
export async function startConsumers(count: number, options: ConsumerOptions): Promise<Consumer[]> {
  const consumers = Array.from({ length: count }, () => new Consumer(options));
  onTestFinished(async () => void (await Promise.all(consumers.map((consumer) => consumer.kill()))));
  await Promise.all(consumers.map((consumer) => consumer.start()));
  return consumers;
}

/**
 * Starts a service or a relay. Resolves when it has died, or was killed `life` milliseconds after it had placed an
 * order.
 */
export async function liveAndDie(options: ServiceOptions, life?: number): Promise<void> {
  const child = fork(new URL('./service.ts', import.meta.url), [JSON.stringify(options)]);
  const exited = once(child, 'exit');
  if (life !== undefined) child.once('message', () => setTimeout(() => child.kill('SIGKILL'), life));
  const [code, signal] = await exited;
  if (signal !== 'SIGKILL') throw new Error(`the ${options.role} ended by itself, with ${code ?? signal}`);
}

async function kill(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const exited = once(child, 'exit');
  child.kill('SIGKILL');
  await exited;
}

/** Migrates a database, and makes a table in it. */
export async function prepareDatabase(url: string, table: string) {
  const pool = new pg.Pool({ connectionString: url, max: 20 });
  pool.on('error', () => {});
  onTestFinished(() => pool.end());
  const database = fromPg(pool);
  await migrate(database);
  await pool.query(`create table ${table}`);
  return { pool, database };
}
