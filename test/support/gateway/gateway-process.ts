/**
 * A gateway in a process of its own, run with --expose-gc. It is not helped over what Node takes for fatal: a
 * rejection that nobody handles ends it.
 */
import { play } from '../../../bench/support/part.ts';
import { createGateway, type RouteOptions } from '../../../src/gateway/index.ts';
import { ServiceClient, type ServiceDiscovery, StaticServiceDiscovery } from '../../../src/index.ts';
import { RedisServiceDiscovery } from '../../../src/redis/index.ts';

export interface GatewayTask {
  /** Where instances register, or where they are. */
  readonly registry: { redis: string; keyPrefix: string } | Record<string, string[]>;
  readonly routes: readonly RouteOptions[];
}

export interface GatewayUsage {
  /** Open sockets, those to clients and those to services. */
  readonly sockets: number;
  /** Bytes of heap in use, garbage apart. */
  readonly heap: number;
  /** Bytes of memory at most since the last look. */
  readonly peak: number;
  readonly listeners: number;
  /** Warnings of Node, such as of many listeners. */
  readonly warnings: readonly string[];
}

/** Milliseconds. */
const LOOK_EACH = 20;

await play<GatewayTask>(async ({ registry, routes }) => {
  const client = new ServiceClient({
    discovery: createDiscovery(registry),
    // An attempt lasts until the head of its response, and so as long as its upload.
    services: { uploads: { attemptTimeout: 90_000 } },
  });
  const gateway = await createGateway({ client, routes, drainDelay: 0, shutdownTimeout: 5_000 });
  const url = await gateway.listen({ port: 0 });
  const warnings: string[] = [];
  process.on('warning', ({ name, message }) => void warnings.push(`${name}: ${message}`));
  let peak = 0;
  setInterval(() => {
    peak = Math.max(peak, process.memoryUsage.rss());
  }, LOOK_EACH);
  const emitters = [process, gateway.server];
  return {
    url: () => url,
    reload: () => gateway.reload({ routes }),
    close: () => gateway.close(),
    async usage(): Promise<GatewayUsage> {
      global.gc!();
      // Some objects are let go of only in the next turn.
      await new Promise(setImmediate);
      global.gc!();
      const usage = {
        sockets: countSockets(),
        heap: process.memoryUsage().heapUsed,
        peak,
        listeners: emitters.reduce((sum, emitter) => sum + countListeners(emitter), 0),
        warnings,
      };
      peak = process.memoryUsage.rss();
      return usage;
    },
  };
});

function createDiscovery(registry: GatewayTask['registry']): ServiceDiscovery {
  if (typeof registry.redis !== 'string')
    return new StaticServiceDiscovery(registry as Record<string, string[]>);
  return new RedisServiceDiscovery(registry as { redis: string; keyPrefix: string });
}

/** Counts the sockets of TCP; the channel to the parent is none. */
function countSockets(): number {
  return process.getActiveResourcesInfo().filter((kind) => kind === 'TCPSocketWrap').length;
}

function countListeners(emitter: NodeJS.EventEmitter): number {
  return emitter.eventNames().reduce((sum, name) => sum + emitter.listenerCount(name), 0);
}
