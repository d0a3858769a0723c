import { describe, expect, it, vi } from 'vitest';
import type { InstanceListener } from '../../src/discovery/service-discovery.ts';
import { toInstance } from '../../src/discovery/service-instance.ts';
import { Watchers } from '../../src/discovery/watchers.ts';
import { fling, flush } from '../policies/helpers.ts';

const service = 'user-service';

const list = (...ids: string[]) =>
  ids.map((instanceId) => toInstance({ serviceName: service, instanceId, host: '10.0.0.1', port: 8001 }));

/** The ids that each telling named. */
function listening(watchers: Watchers, serviceName = service) {
  const told: string[][] = [];
  const unsubscribe = watchers.watch(serviceName, (instances) =>
    told.push(instances.map(({ instanceId }) => instanceId)),
  );
  return { told, unsubscribe };
}

describe('watchers', () => {
  it('watchers are told at once, each about its own service', () => {
    const watchers = new Watchers();
    const [users, orders] = [listening(watchers), listening(watchers, 'order-service')];
    const instances = list('u1');
    const listener = vi.fn<InstanceListener>();
    watchers.watch(service, listener);
    watchers.notify(service, instances);
    expect(listener.mock.calls[0]![0]).toBe(instances);
    expect([users.told, orders.told]).toEqual([[['u1']], []]);
  });

  it('watchers are told of each change once and in order though a listener makes changes', () => {
    const watchers = new Watchers();
    const before = listening(watchers);
    const changing = vi.fn<InstanceListener>(([first]) => {
      if (first?.instanceId !== 'u1') return;
      watchers.notify(service, list('u2'));
      watchers.notify('order-service', list('o1'));
      watchers.notify(service, list('u3'));
    });
    watchers.watch(service, changing);
    const [after, orders] = [listening(watchers), listening(watchers, 'order-service')];
    watchers.notify(service, list('u1'));
    for (const { told } of [before, after]) expect(told).toEqual([['u1'], ['u2'], ['u3']]);
    expect(changing).toHaveBeenCalledTimes(3);
    expect(orders.told).toEqual([['o1']]);
  });

  it('watchers are told nothing any more if another listener unsubscribed them during the telling', () => {
    const watchers = new Watchers();
    const first = listening(watchers);
    watchers.watch(service, () => last.unsubscribe());
    const last = listening(watchers);
    watchers.notify(service, list('u1'));
    watchers.notify(service, list('u2'));
    expect(first.told).toEqual([['u1'], ['u2']]);
    expect(last.told).toEqual([]);
  });

  it('watchers are not told of a change that was under way when they began to watch', () => {
    const watchers = new Watchers();
    let late: ReturnType<typeof listening> | undefined;
    watchers.watch(service, () => {
      late ??= listening(watchers);
    });
    watchers.notify(service, list('u1'));
    expect(late!.told).toEqual([]);
    watchers.notify(service, list('u2'));
    expect(late!.told).toEqual([['u2']]);
  });

  it('watchers are told nothing any more once all were sent away, not even what was still to be told', () => {
    const watchers = new Watchers();
    let next: ReturnType<typeof listening> | undefined;
    watchers.watch(service, () => {
      watchers.notify(service, list('u2'));
      watchers.clear();
      next = listening(watchers);
    });
    const other = listening(watchers);
    watchers.notify(service, list('u1'));
    watchers.notify(service, list('u3'));
    expect(other.told).toEqual([]);
    expect(next!.told).toEqual([['u3']]);
  });

  it.each([undefined, null, {}])('watchers have to be functions, unlike %o', (listener) => {
    const watchers = new Watchers();
    expect(() => watchers.watch(service, listener as never)).toThrow(TypeError);
    expect(watchers.size).toBe(0);
  });
});

it.each<[string, InstanceListener]>([
  ['throws', () => fling(new Error('broken'))],
  ['rejects', (() => Promise.reject(new Error('broken'))) as InstanceListener],
])('a listener that %s disturbs nobody, and becomes a process warning', async (_how, broken) => {
  const warn = vi.spyOn(process, 'emitWarning').mockImplementation(() => {});
  const watchers = new Watchers();
  const before = listening(watchers);
  watchers.watch(service, broken);
  const after = listening(watchers);
  for (const id of ['u1', 'u2']) expect(() => watchers.notify(service, list(id))).not.toThrow();
  await flush();
  for (const { told } of [before, after]) expect(told).toEqual([['u1'], ['u2']]);
  expect(warn).toHaveBeenCalledTimes(2);
  expect(warn).toHaveBeenCalledWith(expect.stringContaining('broken'), {
    type: 'HoldfastListenerWarning',
    detail: expect.any(String),
  });
});

describe('the number of watchers', () => {
  it('the number of watchers counts each that watches, and the same listener twice if it does so twice', () => {
    const watchers = new Watchers();
    const listener = vi.fn();
    const unsubscribe = watchers.watch(service, listener);
    watchers.watch(service, listener);
    listening(watchers, 'order-service');
    expect(watchers.size).toBe(3);
    for (let again = 0; again < 3; again++) unsubscribe();
    expect(watchers.size).toBe(2);
    watchers.notify(service, list('u1'));
    expect(listener).toHaveBeenCalledTimes(1);
  });

  it('the number of watchers is known for each service', () => {
    const watchers = new Watchers();
    const [one, other] = [listening(watchers), listening(watchers)];
    expect([watchers.has(service), watchers.has('order-service')]).toEqual([true, false]);
    one.unsubscribe();
    expect(watchers.has(service)).toBe(true);
    other.unsubscribe();
    expect(watchers.has(service)).toBe(false);
    listening(watchers);
    other.unsubscribe();
    expect(watchers.has(service)).toBe(true);
    expect(watchers.size).toBe(1);
  });

  it('the number of watchers is none once all were sent away', () => {
    const watchers = new Watchers();
    listening(watchers);
    listening(watchers, 'order-service');
    watchers.clear();
    expect(watchers.size).toBe(0);
    expect([watchers.has(service), watchers.has('order-service')]).toEqual([false, false]);
  });
});
