/** Loads both builds in one process, as nothing but Jest or a bundler does: what must be one, is. */
const assert = require('node:assert/strict');
const { join } = require('node:path');

async function main() {
  const esm = await import('holdfast');
  assert.equal(require('holdfast').Retry, esm.Retry);
  const cjs = require(join(process.cwd(), 'node_modules/holdfast/dist/index.cjs'));
  assert.notEqual(cjs.Retry, esm.Retry);
  assert.deepEqual(Object.keys(cjs).sort(), Object.keys(esm).sort());
  for (const [one, other] of [
    [esm, cjs],
    [cjs, esm],
  ]) {
    assert.ok(new one.TimeoutError('late', 5) instanceof other.TimeoutError);
    assert.ok(!(new one.TimeoutError('late', 5) instanceof other.CircuitOpenError));

    const context = one.requestContextFrom({ 'x-request-id': 'r1' });
    assert.equal(one.runWithRequestContext(context, other.currentRequestContext), context);

    let calls = 0;
    const inner = new one.Retry({ maxAttempts: 2, backoff: () => 0 });
    const outer = new other.Retry({ backoff: () => 0 });
    const fail = async () => {
      calls++;
      throw new Error('down');
    };
    const error = await outer.execute(() => inner.execute(fail)).catch((reason) => reason);
    assert.equal(calls, 2);
    assert.ok(other.areRetriesSpent(error));
  }
  const registrars = [esm, cjs].map(({ InMemoryServiceDiscovery, ServiceRegistrar }) => {
    const instance = { serviceName: 'user-service', host: '10.0.0.1', port: 8001 };
    return new ServiceRegistrar({
      discovery: new InMemoryServiceDiscovery(),
      instance,
      deregisterOn: 'SIGTERM',
    });
  });
  await Promise.all(registrars.map((registrar) => registrar.register()));
  assert.equal(process.listenerCount('SIGTERM'), 1);
  await Promise.all(registrars.map((registrar) => registrar.close()));
}

void main();
