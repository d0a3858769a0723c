import { describe, expect, it } from 'vitest';
import { findChanges, listDifferences } from '../../src/cli/service-changes.ts';
import type { InstanceReport, ServiceReport } from '../../src/cli/service-report.ts';
import { type InstanceRegistration, toInstance } from '../../src/discovery/service-instance.ts';

function instance(instanceId: string, more: Partial<InstanceRegistration> = {}) {
  const registration = { serviceName: 's', instanceId, host: 'h', port: 80, registeredAt: 1, ...more };
  return toInstance(registration);
}

function reported(
  instanceId: string,
  expiresIn = 90_000,
  more?: Partial<InstanceRegistration>,
): InstanceReport {
  return { instance: instance(instanceId, more), heartbeatAge: 0, expiresIn };
}

function report(
  now: number,
  instances: InstanceReport[],
  invalid: ServiceReport['invalid'] = [],
): ServiceReport {
  return { serviceName: 's', version: 1, now, instances, invalid };
}

function told(before: ServiceReport | undefined, after: ServiceReport): string[] {
  return findChanges(before, after).map((change) => {
    const { instanceId } = change.change === 'invalid' ? change.entry : change.report.instance;
    return `${instanceId} ${change.change}`;
  });
}

describe('between two readings of a service', () => {
  it('every instance is present at the first reading of a service', () => {
    expect(told(undefined, report(0, [reported('a'), reported('b')]))).toEqual(['a present', 'b present']);
  });

  it('heartbeats are no change between two readings of a service', () => {
    const after = reported('a', 90_000, { lastHeartbeat: 5_000 });
    expect(told(report(0, [reported('a', 85_000)]), report(5_000, [after]))).toEqual([]);
  });

  it('an instance that vanishes between two readings has expired if it was to expire by then, and has left if not', () => {
    const before = report(1_000, [reported('a', 500), reported('b', 501), reported('c')]);
    expect(told(before, report(1_500, [reported('c')]))).toEqual(['a expired', 'b left']);
  });

  it('between two readings of a service instances join and change', () => {
    const before = report(0, [reported('a')]);
    const after = report(1, [reported('a', 90_000, { weight: 2 }), reported('b')]);
    expect(told(before, after)).toEqual(['a changed', 'b joined']);
  });

  it('between two readings an invalid entry is reported once for each reason, and is no departure', () => {
    const bad = [{ instanceId: 'a', reason: 'x' }];
    expect(told(report(0, [reported('a')]), report(1, [], bad))).toEqual(['a invalid']);
    expect(told(report(1, [], bad), report(2, [], bad))).toEqual([]);
    expect(told(report(2, [], bad), report(3, [], [{ instanceId: 'a', reason: 'y' }]))).toEqual([
      'a invalid',
    ]);
    expect(told(report(3, [], bad), report(4, [reported('a')]))).toEqual(['a joined']);
  });
});

describe('the difference between two instances', () => {
  it('the difference between two instances names what changed, with the values', () => {
    const before = instance('a', { zone: 'eu', metadata: { version: '1', gone: 'x' } });
    const after = instance('a', {
      status: 'unhealthy',
      weight: 0,
      port: 81,
      metadata: { version: '2', new: 'y' },
    });
    expect(listDifferences(before, after)).toEqual([
      'origin http://h:80 → http://h:81',
      'status healthy → unhealthy',
      'weight 1 → 0',
      'zone eu → none',
      'metadata.version 1 → 2',
      'metadata.gone x → none',
      'metadata.new none → y',
    ]);
  });

  it('the difference between two instances tells a restart from a heartbeat', () => {
    expect(listDifferences(instance('a'), instance('a', { registeredAt: 2 }))).toEqual(['registered again']);
  });
});
