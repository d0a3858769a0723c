import { createServer } from 'node:http';
import { flushCompileCache } from 'node:module';
import type { AddressInfo } from 'node:net';

/**
 * One instance of a service that registers itself in Redis, in a process of its own with a clock of its own. It
 * responds to every request, tells its parent when it is registered, and leaves when it is told to.
 */
const { redis, keyPrefix, serviceName, instanceId, ttl, heartbeatInterval, clockShift } = JSON.parse(
  process.argv[2]!,
);

const RealDate = Date;
globalThis.Date = class extends RealDate {
  constructor(...args: []) {
    super(...(args.length > 0 ? args : ([RealDate.now() + clockShift] as unknown as [])));
  }

  static override now() {
    return RealDate.now() + clockShift;
  }
} as DateConstructor;

const { RedisServiceDiscovery } = await import('../../src/redis/redis-service-discovery.ts');
const { ServiceRegistrar } = await import('../../src/discovery/service-registrar.ts');

const server = createServer((_request, response) => {
  response.writeHead(200, { 'content-type': 'application/json' });
  response.end(JSON.stringify({ instanceId }));
});
await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
const { port } = server.address() as AddressInfo;

const discovery = new RedisServiceDiscovery({ redis, keyPrefix, ttl, allowLoopback: true });
const registrar = new ServiceRegistrar({
  discovery,
  instance: { serviceName, instanceId, host: '127.0.0.1', port },
  heartbeatInterval,
});
await registrar.register();
// Most end by SIGKILL, and would keep nothing for the next one.
flushCompileCache();
process.send?.('registered');

process.on('message', async () => {
  await registrar.close();
  await discovery.close();
  process.exit();
});
process.on('disconnect', () => process.exit());
