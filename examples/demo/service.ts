import Fastify, { type FastifyInstance } from 'fastify';
import {
  type InMemoryServiceDiscovery,
  requestContextFrom,
  runWithRequestContext,
  ServiceClient,
  ServiceRegistrar,
} from '../../src/index.ts';

/** One running copy of a service, with the switches that the demo throws. */
export interface RunningInstance {
  readonly name: string;
  readonly app: FastifyInstance;
  /** Its own client: each instance judges those that it calls by what it sees itself. */
  readonly client: ServiceClient;
  /** Requests received since the start. */
  received: number;
  /** Milliseconds that it waits before it answers. */
  delay: number;
  /** Answers 503 to everything. */
  broken: boolean;
  /** As a crash: sockets cut, nothing deregistered. */
  kill(): Promise<void>;
  stop(): Promise<void>;
}

export type Routes = (app: FastifyInstance, client: ServiceClient) => void;

/** Starts an instance on a free port and registers it. */
export async function startInstance(
  name: string,
  discovery: InMemoryServiceDiscovery,
  routes: Routes,
): Promise<RunningInstance> {
  const app = Fastify({ forceCloseConnections: true });
  const client = new ServiceClient({ discovery, callerName: name });

  // What the caller sent (request id, trace, deadline) goes along with every call that is made for it.
  app.addHook('onRequest', (request, _reply, done) => {
    runWithRequestContext(requestContextFrom(request.headers), done);
  });
  app.addHook('onRequest', async (_request, reply) => {
    instance.received++;
    if (instance.delay > 0) await new Promise((resolve) => setTimeout(resolve, instance.delay));
    if (instance.broken) return reply.code(503).send({ error: `${name} is out of order` });
  });
  routes(app, client);
  await app.listen({ host: '127.0.0.1', port: 0 });

  const { port } = app.server.address() as { port: number };
  const registrar = new ServiceRegistrar({
    discovery,
    instance: { serviceName: name, host: '127.0.0.1', port },
  });
  await registrar.register();

  const instance: RunningInstance = {
    name,
    app,
    client,
    received: 0,
    delay: 0,
    broken: false,
    kill: () => app.close(),
    async stop() {
      await registrar.close();
      await client.close();
      await app.close();
    },
  };
  return instance;
}

/** Answers a request with the same key once: a second one, even at the same time, gets the first one's answer. */
export class OncePerKey<T> {
  readonly #answers = new Map<string, Promise<T>>();

  do(key: string, action: () => Promise<T>): Promise<T> {
    let answer = this.#answers.get(key);
    if (answer === undefined) {
      answer = action();
      this.#answers.set(key, answer);
      // What failed may be tried again under the same key.
      answer.catch(() => this.#answers.delete(key));
    }
    return answer;
  }
}
