import Fastify, { type FastifyInstance } from 'fastify';
import type pg from 'pg';
import {
  currentRequestContext,
  type EventBus,
  fastifyGuard,
  ServiceClient,
  type ServiceDiscovery,
  ServiceRegistrar,
} from '../../src/index.ts';
import type { Events } from './events.ts';
import { createGuard } from './guard.ts';
import { Misbehaviour, type Switches } from './misbehaviour.ts';
import { sendProblem, useProblems } from './problem.ts';
import { openPool } from './service-database.ts';
import { IDENTIFIERS, SERVICES } from './services.ts';

/** One running copy of a service, in this process or in one of its own. */
export interface Instance {
  readonly service: string;
  readonly instanceId: string;
  set(switches: Partial<Switches>): Promise<void>;
  /** Requests received since the start. */
  received(): Promise<number>;
  /** A crash: sockets cut, nothing deregistered. A process of its own leaves events half handled as well. */
  kill(): Promise<void>;
  stop(): Promise<void>;
}

/** The news that an instance tells of its calls to other services, and of requests to itself. */
export type News =
  | { kind: 'retry' }
  /** A request is held, as the demo has it. */
  | { kind: 'held' }
  /** A request got the response of an earlier one, or was rejected since it had been undone. */
  | { kind: 'replay' | 'revoked' }
  /** A request undoes another one that had no response, and is not let through any more. */
  | { kind: 'undone-unseen' }
  | { kind: 'open'; service: string; wait: number }
  | { kind: 'half-open' | 'close'; service: string };

/** The registry, the bus, the database and the listener that an instance needs. */
export interface Environment {
  readonly discovery: ServiceDiscovery;
  readonly bus: EventBus<Events>;
  readonly databaseUrl: string;
  /** The address of the keys of the gateway. Default: there is none in front of the service. */
  readonly gatewayKeys?: string | undefined;
  /** Milliseconds. */
  readonly heartbeatInterval?: number;
  /** Milliseconds after which others take over what an instance that died has done for its service. */
  readonly lease?: number;
  tell(news: News): void;
}

/** The things that a service is made of. */
export interface ServiceContext extends Pick<Environment, 'bus' | 'lease' | 'tell'> {
  readonly app: FastifyInstance;
  readonly pool: pg.Pool;
  readonly client: ServiceClient;
  /** Has something closed when the instance ends, before all that was given earlier. */
  closeAtEnd(closeable: Closeable): void;
}

interface Closeable {
  close(): Promise<void>;
}

/** Starts an instance in this process, on a free port, and registers it. */
export async function startInstance(service: string, environment: Environment): Promise<Instance> {
  const { discovery, bus, databaseUrl, gatewayKeys, heartbeatInterval, lease, tell } = environment;
  // A field that is not known is an error of the caller, and must not be left out without a word.
  const ajv = { customOptions: { removeAdditional: false, coerceTypes: false, allErrors: true } };
  const app = Fastify({ forceCloseConnections: true, ajv, frameworkErrors: sendProblem });
  // Its own client: each instance judges those that it calls by what it sees itself.
  const client = new ServiceClient({ discovery, callerName: service });
  const misbehaviour = new Misbehaviour(service, () => tell({ kind: 'held' }));
  let received = 0;

  app.addHook('onRequest', (request) => {
    received++;
    return misbehaviour.onArrival(request);
  });
  const pool = await openPool(databaseUrl);
  const closeables: Closeable[] = [{ close: () => pool.end() }];
  const identity = gatewayKeys === undefined ? undefined : IDENTIFIERS[service]?.(gatewayKeys);
  const guard = createGuard(service, pool, tell, identity);
  closeables.unshift(guard);
  await app.register(fastifyGuard(guard));
  app.addHook('onRequest', async () => {
    const { compensates } = currentRequestContext() ?? {};
    if (compensates?.seen === false) tell({ kind: 'undone-unseen' });
  });
  app.addHook('preHandler', (request) => misbehaviour.onHandling(request));
  useProblems(app);
  await SERVICES[service]!({
    ...{ app, client, bus, pool, lease, tell },
    closeAtEnd: (closeable) => void closeables.unshift(closeable),
  });
  await app.listen({ host: '127.0.0.1', port: 0 });

  const { port } = app.server.address() as { port: number };
  const registrar = new ServiceRegistrar({
    discovery,
    instance: { serviceName: service, host: '127.0.0.1', port },
    heartbeatInterval,
  });
  const { instanceId } = await registrar.register();
  tellOf(client, tell);
  const end = async () => {
    await app.close();
    for (const closeable of closeables.splice(0)) await closeable.close();
    await client.close();
  };

  return {
    service,
    instanceId,
    async set(changed) {
      misbehaviour.set(changed);
    },
    received: async () => received,
    kill: end,
    async stop() {
      await registrar.close();
      await end();
    },
  };
}

/** Tells what becomes of the calls of a client to each service. */
export function tellOf(client: ServiceClient, tell: (news: News) => void): void {
  for (const service of Object.keys(SERVICES)) {
    const { retry, circuitBreaker } = client.policies(service);
    retry!.on('retry', () => tell({ kind: 'retry' }));
    circuitBreaker!.on('open', ({ wait }) => tell({ kind: 'open', service, wait }));
    circuitBreaker!.on('half-open', () => tell({ kind: 'half-open', service }));
    circuitBreaker!.on('close', () => tell({ kind: 'close', service }));
  }
}
