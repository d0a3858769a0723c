import assert from 'node:assert/strict';
import { once } from 'node:events';
import { existsSync, readFileSync } from 'node:fs';
import { createServer } from 'node:http';

const expectedNames = {
  holdfast: [
    'Bulkhead',
    'BulkheadFullError',
    'CircuitBreaker',
    'CircuitOpenError',
    'Fallback',
    'HoldfastError',
    'InMemoryServiceDiscovery',
    'LoadBalancer',
    'NoInstanceError',
    'Retry',
    'RetryBudget',
    'RetryBudgetExhausted',
    'ServiceClient',
    'ServiceConnectionError',
    'ServiceRegistrar',
    'ServiceResponseError',
    'StaticServiceDiscovery',
    'Timeout',
    'TimeoutError',
    'compose',
    'constantBackoff',
    'decorrelatedJitter',
    'exponentialBackoff',
    'wrap',
  ],
  'holdfast/redis': ['RedisServiceDiscovery'],
  'holdfast/postgres': ['PostgresInbox', 'fromKysely', 'fromPg', 'migrate'],
  'holdfast/gateway': ['GatewayFile', 'createGateway', 'gateway', 'verifyIdentity'],
};

/** What an entry needs that is not installed with the package. */
const peers = { 'holdfast/redis': 'ioredis' };
const isInstalled = (name) => existsSync(`node_modules/${name}`);

/** Loads every entry with `load`, compares it with what `loadOther` gives for the other format, and makes calls. */
export async function check(load, loadOther) {
  const { exports } = JSON.parse(readFileSync('node_modules/holdfast/package.json', 'utf8'));
  const entries = Object.keys(exports).filter((path) => !path.endsWith('.json'));
  assert.deepEqual(
    entries.map((path) => path.replace('.', 'holdfast')),
    Object.keys(expectedNames),
  );

  for (const [entry, names] of Object.entries(expectedNames)) {
    const peer = peers[entry];
    if (peer !== undefined && !isInstalled(peer)) {
      await assert.rejects(async () => load(entry), new RegExp(`Cannot find package '${peer}'`));
      continue;
    }
    const loaded = await load(entry);
    const other = await loadOther(entry);
    for (const name of names) assert.ok(loaded[name], `${entry} exports no ${name}`);
    assert.deepEqual(Object.keys(loaded).sort(), Object.keys(other).sort());
    for (const name of Object.keys(loaded)) assert.equal(loaded[name], other[name], `two kinds of ${name}`);
  }

  const holdfast = await load('holdfast');
  await makeCalls(holdfast);
  if (isInstalled('ioredis')) await missRedis(await load('holdfast/redis'), holdfast);
  const done = performance.now();
  process.once('exit', () => {
    assert.ok(performance.now() - done < 1_000, 'something held the process open');
  });
}

/** An error of one entry is the class that another one exports. */
async function missRedis({ RedisServiceDiscovery }, { HoldfastError, RedisError }) {
  const discovery = new RedisServiceDiscovery({ redis: 'redis://127.0.0.1:1', timeout: 100 });
  const error = await discovery.services().catch((reason) => reason);
  assert.equal(error.constructor, RedisError);
  assert.ok(error instanceof HoldfastError);
  await discovery.close();
}

async function makeCalls({ ServiceClient, StaticServiceDiscovery }) {
  const seen = [];
  const server = createServer((request, response) => {
    seen.push(request.url);
    const ready = request.url !== '/flaky' || seen.length > 2;
    response.writeHead(ready ? 200 : 503, { 'content-type': 'application/json' });
    response.end(JSON.stringify({ id: 'u1' }));
  });
  await once(server.listen(0, '127.0.0.1'), 'listening');
  const client = new ServiceClient({
    discovery: new StaticServiceDiscovery({ 'user-service': [`http://127.0.0.1:${server.address().port}`] }),
    callerName: 'smoke',
  });

  const call = (path) => client.call({ service: 'user-service', method: 'GET', path });
  assert.deepEqual(await call('/users/u1'), { id: 'u1' });
  assert.deepEqual(await call('/flaky'), { id: 'u1' });
  assert.deepEqual(seen, ['/users/u1', '/flaky', '/flaky']);

  await client.close();
  server.close();
}
