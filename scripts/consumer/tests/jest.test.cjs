const { CircuitBreaker, CircuitOpenError, compose, Timeout, TimeoutError } = require('holdfast');

beforeEach(() => void jest.useFakeTimers());
afterEach(() => void jest.useRealTimers());

test('a breaker opens when calls time out, and closes when it is time for a probe', async () => {
  const breaker = new CircuitBreaker({ failureThreshold: 2, resetTimeout: 10_000 });
  const policy = compose(breaker, new Timeout(1_000));
  for (let call = 0; call < 2; call++) {
    const failed = expect(policy.execute(() => new Promise(() => {}))).rejects.toBeInstanceOf(TimeoutError);
    await jest.advanceTimersByTimeAsync(1_000);
    await failed;
  }
  expect(breaker.state).toBe('open');
  await expect(policy.execute(async () => 'not called')).rejects.toBeInstanceOf(CircuitOpenError);
  await jest.advanceTimersByTimeAsync(10_000);
  expect(await policy.execute(async () => 'well again')).toBe('well again');
  expect(breaker.state).toBe('closed');
});

test.each(['redis', 'postgres', 'gateway'])('the entry holdfast/%s can be loaded', (entry) => {
  expect(Object.keys(require(`holdfast/${entry}`))).not.toEqual([]);
});

test('a gateway starts, responds and closes', async () => {
  jest.useRealTimers();
  const { createGateway } = require('holdfast/gateway');
  const { InMemoryServiceDiscovery, ServiceClient } = require('holdfast');
  const client = new ServiceClient({ discovery: new InMemoryServiceDiscovery() });
  const gateway = await createGateway({
    client,
    routes: [{ path: '/users', service: 'user-service', auth: false }],
  });
  const origin = await gateway.listen({ port: 0, host: '127.0.0.1' });
  expect((await fetch(`${origin}/elsewhere`)).status).toBe(404);
  await gateway.close();
  await client.close();
});
