import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { InMemoryServiceDiscovery, ServiceRegistrar } from '../../src/index.ts';

export const discovery = new InMemoryServiceDiscovery();

/** Two instances of `user-service`, each on a free port and registered; the second fails each third request. */
const instances = await Promise.all(
  ['one', 'two'].map(async (instanceId) => {
    let requests = 0;
    const server = createServer((request, response) => {
      const ok = instanceId === 'one' || ++requests % 3 !== 0;
      response.writeHead(ok ? 200 : 503, { 'content-type': 'application/json' });
      response.end(JSON.stringify({ path: request.url, answeredBy: instanceId }));
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const { port } = server.address() as AddressInfo;
    const instance = { serviceName: 'user-service', instanceId, host: '127.0.0.1', port };
    const registrar = new ServiceRegistrar({ discovery, instance });
    await registrar.register();
    return { server, registrar };
  }),
);

export async function stop(): Promise<void> {
  for (const { server, registrar } of instances) {
    await registrar.close();
    server.close();
  }
}
