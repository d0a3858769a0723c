import { beforeEach, describe, expect, it, onTestFinished, vi } from 'vitest';
import { PoliciesByName } from '../../src/client/policies-by-name.ts';
import type { ServiceOptions } from '../../src/client/service-options.ts';
import { ServicePolicies } from '../../src/client/service-policies.ts';

const TEN_MINUTES = 600_000;
/** More than are remembered. */
const MANY = 600;

beforeEach(() => {
  vi.useFakeTimers();
});

function policiesByName(options: ServiceOptions = {}, configured: string[] = []) {
  const policies = new PoliciesByName(configured, (service) => new ServicePolicies(service, options));
  onTestFinished(() => policies.close());
  const flood = () => {
    for (let index = 0; index < MANY; index++) policies.get(`nobody-${index}`);
  };
  const remembered = () => {
    let count = 0;
    for (let index = 0; index < MANY; index++) if (policies.peek(`nobody-${index}`)) count++;
    return count;
  };
  return { policies, flood, remembered };
}

/** Uses the policies as a call that reaches an instance does. */
function call(policies: ServicePolicies): void {
  policies.enter();
  policies.reached = true;
  policies.leave();
}

describe('the policies of services', () => {
  it('the policies of services are remembered for no more than 500 services that no call has reached, the latest ones', () => {
    const { policies, flood, remembered } = policiesByName();
    flood();
    expect(remembered()).toBeLessThanOrEqual(500);
    expect(remembered()).toBeGreaterThanOrEqual(250);
    expect(policies.peek(`nobody-${MANY - 1}`)).toBeDefined();
    expect(policies.peek('nobody-0')).toBeUndefined();
  });

  it('the policies of a service are forgotten once no call has used the service for ten minutes', () => {
    const { policies } = policiesByName();
    call(policies.get('users'));
    vi.advanceTimersByTime(2 * TEN_MINUTES);
    expect(policies.peek('users')).toBeUndefined();
    expect(vi.getTimerCount()).toBe(0);
  });

  it('the policies of a service stay while its cache responds to the calls', () => {
    const { policies } = policiesByName();
    const before = policies.get('users');
    call(before);
    for (let minute = 0; minute < 60; minute++) {
      vi.advanceTimersByTime(60_000);
      before.enter();
      before.leave();
    }
    expect(policies.peek('users')).toBe(before);
  });

  it('the policies of a service stay where the service is configured', () => {
    const { policies, flood } = policiesByName({}, ['users']);
    const before = policies.peek('users');
    flood();
    vi.advanceTimersByTime(5 * TEN_MINUTES);
    expect(policies.get('users')).toBe(before);
  });

  const reasons: [string, (policies: ServicePolicies) => void][] = [
    ['somebody listens to the breaker', ({ circuitBreaker }) => void circuitBreaker!.on('open', () => {})],
    ['somebody listens to the retry', ({ retry }) => void retry!.once('give-up', () => {})],
    ['somebody listens to the hedge', ({ hedge }) => void hedge!.on('win', () => {})],
    ['somebody listens to the limiter', ({ rateLimiter }) => void rateLimiter!.on('reject', () => {})],
    ['somebody listens to the cache', ({ caching }) => void caching!.cache.on('hit', () => {})],
    ['the breaker is isolated', ({ circuitBreaker }) => circuitBreaker!.isolate()],
    ['a call is under way', (policies) => policies.enter()],
  ];

  it.each(reasons)('the policies of a service stay where %s', (_why, use) => {
    const { policies, flood } = policiesByName({ hedge: {}, cache: {}, rateLimit: { limit: 1 } });
    const users = policies.get('users');
    use(users);
    flood();
    vi.advanceTimersByTime(5 * TEN_MINUTES);
    expect(policies.peek('users')).toBe(users);
  });

  it('the policies of a service stay where a call has reached the service within ten minutes, whatever else is called', () => {
    const { policies, flood } = policiesByName();
    const users = policies.get('users');
    call(users);
    for (let minute = 0; minute < 30; minute++) {
      if (minute % 3 === 0) flood();
      vi.advanceTimersByTime(60_000);
      if (minute % 9 === 0) call(users);
      expect(policies.peek('users')).toBe(users);
    }
  });

  it('the policies of a service stay while the breaker is open and not yet due for a probe, and no longer', () => {
    const { policies } = policiesByName({ circuitBreaker: { resetTimeout: 3 * TEN_MINUTES } });
    const users = policies.get('users');
    call(users);
    users.circuitBreaker!.trip();
    vi.advanceTimersByTime(2.5 * TEN_MINUTES);
    expect(policies.peek('users')).toBe(users);
    vi.advanceTimersByTime(2 * TEN_MINUTES);
    expect(policies.peek('users')).toBeUndefined();
  });

  it('the policies of a service stay while the limiter still counts calls, and no longer', () => {
    const { policies } = policiesByName({
      rateLimit: { limit: 1, interval: 3 * TEN_MINUTES, key: () => 'tenant' },
    });
    const users = policies.get('users');
    call(users);
    expect(users.rateLimiter!.tryAcquire('tenant')).toBe(true);
    vi.advanceTimersByTime(2.5 * TEN_MINUTES);
    expect(policies.peek('users')).toBe(users);
    vi.advanceTimersByTime(2 * TEN_MINUTES);
    expect(policies.peek('users')).toBeUndefined();
  });

  it('the policies of a service are found again by a call while one of them is still held by a caller', () => {
    const { policies, flood } = policiesByName();
    const { circuitBreaker } = policies.get('users').handOut();
    flood();
    expect(policies.peek('users')).toBeUndefined();
    circuitBreaker!.isolate();
    expect(policies.get('users').circuitBreaker).toBe(circuitBreaker);
  });

  it('the policies of a service that were listened to are forgotten once no listener is left', () => {
    const { policies, flood } = policiesByName();
    const listener = () => {};
    const { circuitBreaker } = policies.get('users');
    circuitBreaker!.on('open', listener).off('open', listener);
    flood();
    expect(policies.peek('users')).toBeUndefined();
  });
});
