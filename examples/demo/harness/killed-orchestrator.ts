import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import type { ServiceDiscovery } from '../../../src/index.ts';
import type { OrderRequest } from '../order-service/order-saga.ts';
import { SERVICES } from '../services.ts';

/** An orchestrator in a process of its own, with the database of order-service. */
export class KilledOrchestrator {
  readonly #child: ChildProcess;
  readonly #ready: Promise<unknown>;
  readonly #exited: Promise<unknown>;

  private constructor(databaseUrl: string, services: Record<string, string[]>) {
    const program = new URL('./doomed-orchestrator.ts', import.meta.url);
    this.#child = fork(program, [databaseUrl, JSON.stringify(services)], { execArgv: [], detached: true });
    this.#ready = once(this.#child, 'message');
    this.#exited = once(this.#child, 'exit');
  }

  /** Starts it with a list of the instances that are alive: it has no registry. */
  static async launch(
    databaseUrl: string,
    discovery: ServiceDiscovery,
    crashed: ReadonlySet<string>,
  ): Promise<KilledOrchestrator> {
    const services: Record<string, string[]> = {};
    for (const service of Object.keys(SERVICES)) {
      const alive = (await discovery.instances(service)).filter(({ instanceId }) => !crashed.has(instanceId));
      services[service] = alive.map(({ host, port }) => `http://${host}:${port}`);
    }
    return new KilledOrchestrator(databaseUrl, services);
  }

  async begin(order: OrderRequest): Promise<void> {
    await Promise.race([this.#ready, this.#exited]);
    this.#child.send(order);
  }

  async kill(): Promise<void> {
    this.#child.kill('SIGKILL');
    await this.#exited;
  }
}
