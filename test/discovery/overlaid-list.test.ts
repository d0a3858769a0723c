import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { OverlaidList } from '../../src/discovery/overlaid-list.ts';
import type { InstanceRegistration, ServiceInstance } from '../../src/discovery/service-instance.ts';
import { InvalidInstanceError } from '../../src/errors.ts';
import { instance } from './health-helpers.ts';

const at = (id: string, fields: Partial<InstanceRegistration> = {}) =>
  instance(id, { registeredAt: 0, ...fields });
const statusesOf = (list: OverlaidList) =>
  Object.fromEntries(list.instances.map(({ instanceId, status }) => [instanceId, status]));

describe('a change to a list that is written elsewhere', () => {
  it('a change to a list that is written elsewhere shows in a new list, in which the other instances are the same objects', () => {
    const [u1, u2] = [at('u1'), at('u2')];
    const list = new OverlaidList([u1, u2]);
    const before = list.instances;
    expect(list.update('u1', { status: 'unhealthy' })).toBe(true);
    expect(list.instances).toEqual([{ ...u1, status: 'unhealthy' }, u2]);
    expect(list.instances[1]).toBe(u2);
    for (const frozen of [before, list.instances, ...list.instances])
      expect(Object.isFrozen(frozen)).toBe(true);
    expect([before, list.listed]).toEqual([
      [u1, u2],
      [u1, u2],
    ]);
  });

  it('a change to a list that is written elsewhere may be of the status, the weight and the metadata, one after the other', () => {
    const list = new OverlaidList([at('u1')]);
    const metadata = { version: '2' };
    list.update('u1', { metadata });
    list.update('u1', { weight: 3, metadata: undefined });
    list.update('u1', { status: 'unhealthy', weight: undefined });
    metadata.version = 'changed by the caller';
    expect(list.instances).toMatchObject([{ status: 'unhealthy', weight: 3, metadata: { version: '2' } }]);
  });

  it('a change to a list that is written elsewhere keeps the very list if it changes nothing', () => {
    const list = new OverlaidList([at('u1'), at('u2')]);
    list.update('u1', { status: 'unhealthy' });
    const before = list.instances;
    expect(list.update('u1', { status: 'unhealthy' })).toBe(true);
    expect(list.update('u2', { weight: 1 })).toBe(true);
    expect(list.update('u2', {})).toBe(true);
    expect(list.instances).toBe(before);
  });

  it('a change to a list that is written elsewhere gives false for an instance that the list does not have', () => {
    const list = new OverlaidList([at('u1')]);
    const before = list.instances;
    expect(list.update('u2', { status: 'unhealthy' })).toBe(false);
    expect(new OverlaidList().update('u1', { status: 'unhealthy' })).toBe(false);
    list.replace([at('u1'), at('u2')]);
    expect(statusesOf(list)).toEqual({ u1: 'healthy', u2: 'healthy' });
    expect(before).toHaveLength(1);
  });

  it.each([{ status: 'dead' }, { weight: -1 }, { host: 'b' }, null])(
    'a change to a list that is written elsewhere is rejected if it is %j, and changes nothing',
    (changes) => {
      const list = new OverlaidList([at('u1')]);
      const before = list.instances;
      expect(() => list.update('u1', changes as never)).toThrow(InvalidInstanceError);
      expect(list.instances).toBe(before);
    },
  );
});

describe('a new list', () => {
  it('a new list keeps the changes of instances that it has at the same origin, whatever it says of them', () => {
    const list = new OverlaidList([at('u1'), at('u2')]);
    list.update('u1', { status: 'unhealthy' });
    const [before] = list.instances;
    list.replace([at('u3'), at('u1')]);
    expect(statusesOf(list)).toEqual({ u3: 'healthy', u1: 'unhealthy' });
    expect(list.instances[1]).toBe(before);
    list.replace([at('u1', { weight: 5, status: 'unknown', zone: 'eu' })]);
    expect(list.instances).toMatchObject([{ weight: 5, status: 'unhealthy', zone: 'eu' }]);
  });

  it('a new list that shows the same instances is the very list from before', () => {
    const [u1, u2] = [at('u1'), at('u2')];
    const list = new OverlaidList([u1, u2]);
    list.update('u1', { status: 'unhealthy' });
    const before = list.instances;
    list.replace([u1, u2]);
    expect(list.instances).toBe(before);
  });

  it.each<[string, ServiceInstance[]]>([
    ['left', []],
    ['moved to another port', [at('u1', { port: 9 })]],
    ['moved to another host', [at('u1', { host: '10.0.0.9' })]],
    ['speaks another protocol', [at('u1', { protocol: 'https' })]],
    ['was registered anew', [at('u1', { registeredAt: 1 })]],
  ])('a new list forgets the changes of an instance that %s, also when it returns', (_what, next) => {
    const list = new OverlaidList([at('u1'), at('u2')]);
    list.update('u1', { status: 'unhealthy' });
    list.update('u2', { status: 'unhealthy' });
    list.replace([...next, at('u2')]);
    list.replace([at('u1'), at('u2')]);
    expect(statusesOf(list)).toEqual({ u1: 'healthy', u2: 'unhealthy' });
  });

  it('a new list counts again where it equals the changes', () => {
    const list = new OverlaidList([at('u1')]);
    list.update('u1', { status: 'unhealthy' });
    list.update('u1', { status: 'healthy' });
    list.replace([at('u1', { status: 'unknown' })]);
    expect(statusesOf(list)).toEqual({ u1: 'unknown' });
  });

  it('a new list shows of each instance the last change since it came, in whatever order lists and changes come', () => {
    const known = { u1: at('u1'), u2: at('u2'), u3: at('u3') };
    const id = fc.constantFrom('u1', 'u2', 'u3');
    const step = fc.oneof(
      fc.record({ ids: fc.uniqueArray(id) }),
      fc.record({ id, status: fc.constantFrom('healthy', 'unhealthy', 'unknown') }),
    );
    fc.assert(
      fc.property(fc.array(step, { maxLength: 30 }), (steps) => {
        const list = new OverlaidList();
        const expected = new Map<string, string>();
        for (const next of steps) {
          const before = list.instances;
          if ('ids' in next) {
            list.replace(next.ids.map((listed) => known[listed]));
            const kept = next.ids.map((listed) => [listed, expected.get(listed) ?? 'healthy'] as const);
            expected.clear();
            for (const [listed, status] of kept) expected.set(listed, status);
          } else {
            expect(list.update(next.id, { status: next.status })).toBe(expected.has(next.id));
            if (expected.has(next.id)) expected.set(next.id, next.status);
          }
          expect(list.instances.map(({ instanceId, status }) => [instanceId, status])).toEqual([...expected]);
          if (JSON.stringify(list.instances) === JSON.stringify(before)) expect(list.instances).toBe(before);
        }
      }),
      { numRuns: 200 },
    );
  });
});
