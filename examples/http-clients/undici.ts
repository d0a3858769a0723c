import { getGlobalDispatcher, request, setGlobalDispatcher } from 'undici';
import { createDispatcher, ServiceClient } from '../../src/index.ts';
import { discovery, stop } from './server.ts';

const client = new ServiceClient({ discovery, callerName: 'example' });
const dispatcher = createDispatcher(client);

for (const id of ['u1', 'u2', 'u3']) {
  const { statusCode, body } = await request(`http://user-service/users/${id}`, { dispatcher });
  console.log(statusCode, await body.json());
}

// For all of undici, and for the fetch of Node. What is no service goes the way that it went before.
setGlobalDispatcher(createDispatcher(client, { passthrough: getGlobalDispatcher() }));
for (const id of ['u4', 'u5', 'u6']) {
  const { statusCode, body } = await request(`http://user-service/users/${id}`);
  console.log(statusCode, await body.json());
}
console.log(await (await fetch('http://user-service/users/u7')).json());

await client.close();
await stop();
