import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { InMemoryServiceDiscovery, ServiceClient, ServiceRegistrar } from '../src/index.ts';

const discovery = new InMemoryServiceDiscovery();

// Two instances of a service, each on a free port, each registered.
const instances = await Promise.all(
  ['one', 'two'].map(async (instanceId) => {
    const server = createServer((request, response) => {
      response.writeHead(200, { 'content-type': 'application/json' });
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

const client = new ServiceClient({ discovery, callerName: 'example' });
const { retry } = client.policies('user-service');
retry?.on('retry', ({ attributes }) =>
  console.log(`  ${attributes.instanceId} failed; trying another instance`),
);

for (let call = 1; call <= 6; call++) {
  if (call === 3) {
    console.log('Instance one crashes; nobody tells the registry.');
    instances[0]?.server.closeAllConnections();
    instances[0]?.server.close();
  }
  console.log(await client.call({ service: 'user-service', path: `/users/u${call}` }));
}

await client.close();
for (const { server, registrar } of instances) {
  await registrar.close();
  server.close();
}
