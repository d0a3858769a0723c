import { createDispatcher, ServiceClient } from '../../src/index.ts';
import { discovery, stop } from './server.ts';

const client = new ServiceClient({ discovery, callerName: 'example' });

// The types of Node name the Dispatcher of its own undici; ours fits any version of it.
const init = { dispatcher: createDispatcher(client) } as RequestInit;

for (const id of ['u1', 'u2', 'u3', 'u4', 'u5', 'u6']) {
  const response = await fetch(`http://user-service/users/${id}`, init);
  console.log(response.status, await response.json());
}

await client.close();
await stop();
