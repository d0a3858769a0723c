import Fastify, { type FastifyInstance } from 'fastify';
import {
  requestContextFrom,
  runWithRequestContext,
  ServiceClient,
  type ServiceDiscovery,
  ServiceRegistrar,
} from '../../src/index.ts';
import type { Database } from './database.ts';
import { SERVICES } from './services.ts';

/** One running copy of a service, in this process or in one of its own. */
export interface Instance {
  readonly service: string;
  readonly instanceId: string;
  set(switches: Partial<Switches>): Promise<void>;
  /** Requests received since the start. */
  received(): Promise<number>;
  /** A crash: sockets cut, nothing deregistered. */
  kill(): Promise<void>;
  stop(): Promise<void>;
}

/** The behaviour of an instance, which the demo can change. */
export interface Switches {
  /** Milliseconds that it waits before it responds. */
  delay: number;
  /** It responds to every request with 503. */
  broken: boolean;
}

/** The news that an instance tells of its calls to other services. */
export type News =
  | { kind: 'retry' }
  | { kind: 'open'; service: string; wait: number }
  | { kind: 'half-open' | 'close'; service: string };

/** The registry, the database and the listener that an instance needs. */
export interface Environment {
  readonly discovery: ServiceDiscovery;
  readonly database: Database;
  /** Milliseconds. */
  readonly heartbeatInterval?: number;
  tell(news: News): void;
}

export type Routes = (app: FastifyInstance, client: ServiceClient, database: Database) => void;

/** Starts an instance in this process, on a free port, and registers it. */
export async function startInstance(service: string, environment: Environment): Promise<Instance> {
  const { discovery, database, heartbeatInterval, tell } = environment;
  const app = Fastify({ forceCloseConnections: true });
  // Its own client: each instance judges those that it calls by what it sees itself.
  const client = new ServiceClient({ discovery, callerName: service });
  const switches: Switches = { delay: 0, broken: false };
  let received = 0;

  // What the caller sent (request id, trace, deadline) goes along with every call that is made for it.
  app.addHook('onRequest', (request, _reply, done) => {
    runWithRequestContext(requestContextFrom(request.headers), done);
  });
  app.addHook('onRequest', async (_request, reply) => {
    received++;
    if (switches.delay > 0) await new Promise((resolve) => setTimeout(resolve, switches.delay));
    if (switches.broken) return reply.code(503).send({ error: `${service} is out of order` });
  });
  SERVICES[service]!(app, client, database);
  await app.listen({ host: '127.0.0.1', port: 0 });

  const { port } = app.server.address() as { port: number };
  const registrar = new ServiceRegistrar({
    discovery,
    instance: { serviceName: service, host: '127.0.0.1', port },
    heartbeatInterval,
  });
  const { instanceId } = await registrar.register();
  tellOf(client, tell);

  return {
    service,
    instanceId,
    async set(changed) {
      Object.assign(switches, changed);
    },
    received: async () => received,
    kill: () => app.close(),
    async stop() {
      await registrar.close();
      await client.close();
      await app.close();
    },
  };
}

function tellOf(client: ServiceClient, tell: (news: News) => void): void {
  for (const service of Object.keys(SERVICES)) {
    const { retry, circuitBreaker } = client.policies(service);
    retry!.on('retry', () => tell({ kind: 'retry' }));
    circuitBreaker!.on('open', ({ wait }) => tell({ kind: 'open', service, wait }));
    circuitBreaker!.on('half-open', () => tell({ kind: 'half-open', service }));
    circuitBreaker!.on('close', () => tell({ kind: 'close', service }));
  }
}
