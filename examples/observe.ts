import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import {
  fromConsole,
  InMemoryServiceDiscovery,
  observe,
  ServiceClient,
  ServiceRegistrar,
} from '../src/index.ts';

const discovery = new InMemoryServiceDiscovery();

// A service that is well at first, then breaks down, and is mended.
let broken = false;
const server = createServer((_request, response) => response.writeHead(broken ? 500 : 200).end('"u1"'));
await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
const { port } = server.address() as AddressInfo;
const instance = { serviceName: 'user-service', instanceId: 'user-1', host: '127.0.0.1', port };
const registrar = new ServiceRegistrar({ discovery, instance });

const client = new ServiceClient({
  discovery,
  defaults: { retry: false, circuitBreaker: { failureThreshold: 3, resetTimeout: 100 } },
});

// From here on all that an operator must know is logged. A service gives its own logger: pino, as it is.
const logger = fromConsole();
const ends = [observe(client, { logger }), observe(registrar, { logger })];

await registrar.register();
const call = () => client.call({ service: 'user-service', path: '/users/u1' }).catch(() => undefined);
await call();

broken = true;
for (let times = 0; times < 10; times++) await call();
console.log(client.policies('user-service').circuitBreaker);

broken = false;
while ((await call()) === undefined) await new Promise((resolve) => setTimeout(resolve, 20));

for (const end of ends) end();
await registrar.close();
await client.close();
server.close();
