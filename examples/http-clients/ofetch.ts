import { ofetch } from 'ofetch';
import { createFetch, ServiceClient } from '../../src/index.ts';
import { discovery, stop } from './server.ts';

const client = new ServiceClient({ discovery, callerName: 'example' });

// The mesh retries, within the budget of the service: ofetch need not.
const users = ofetch.create({ baseURL: 'http://user-service', retry: 0 }, { fetch: createFetch(client) });

for (const id of ['u1', 'u2', 'u3', 'u4', 'u5', 'u6']) console.log(await users(`/users/${id}`));

await client.close();
await stop();
