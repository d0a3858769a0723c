import { seeded } from '../../../bench/support/seeded.ts';
import { type Behaviour, FaultyInstances } from '../../support/faulty-instances.ts';
import { ObservedClient, type ObservedClientOptions } from '../../support/observed-client.ts';

/** K of N: how many instances of a service are bad, and how many there are. */
export type Fleet = readonly [bad: number, all: number];

/** Milliseconds that a well instance needs for a response: failures come sooner. */
export const LATENCY = 20;

/** A service some of whose instances are bad, or will be, and a client that has not met it yet. */
export interface Service {
  readonly bad: readonly string[];
  readonly well: readonly string[];
  readonly client: ObservedClient;
}

/** Where the situations take place: all servers are in another process. */
export class Setting {
  readonly servers: FaultyInstances;
  readonly #clients: ObservedClient[] = [];
  #seed: number;

  constructor(seed: number) {
    this.#seed = seed;
    this.servers = new FaultyInstances(seed);
  }

  async service(
    [bad, all]: Fleet,
    behaviour: Behaviour,
    { latency = LATENCY, ...options }: { latency?: number } & Partial<ObservedClientOptions> = {},
  ): Promise<Service> {
    const [failing, well] = await Promise.all([
      this.servers.add(bad, behaviour),
      this.servers.add(all - bad, { latency }),
    ]);
    return { bad: failing, well, client: this.client({ instances: [...failing, ...well], ...options }) };
  }

  client(options: ObservedClientOptions): ObservedClient {
    const client = new ObservedClient({ random: seeded(this.#seed++), ...options });
    this.#clients.push(client);
    return client;
  }

  async end(): Promise<void> {
    await Promise.all(this.#clients.map((client) => client.close()));
    await this.servers.end();
  }
}
