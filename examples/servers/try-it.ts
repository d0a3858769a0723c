import { ServiceClient, StaticServiceDiscovery } from '../../src/index.ts';

/** Calls the example's server as another service would, and probes its health. */
export async function tryIt(origin: string): Promise<void> {
  const discovery = new StaticServiceDiscovery({ 'order-service': [origin] });
  const client = new ServiceClient({ discovery, callerName: 'shop', defaults: { timeout: 1_000 } });
  const order = { service: 'order-service', method: 'POST', path: '/orders', idempotencyKey: 'order-1' };
  console.log('placed', await client.call(order));
  console.log('placed again with the same key', await client.call(order));
  const late = { 'x-request-timeout': '0' };
  const rejected = await fetch(`${origin}/orders`, { method: 'POST', headers: late });
  console.log('past its deadline', rejected.status);
  console.log('ready', await (await fetch(`${origin}/health/ready`)).json());
  await client.close();
}
