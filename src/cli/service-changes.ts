import { originOf, type ServiceInstance, sameInstance } from '../discovery/service-instance.ts';
import type { InstanceReport, InvalidEntry, ServiceReport } from './service-report.ts';

/** A change of an instance between two readings of a service. */
export type ServiceChange = { readonly serviceName: string } & (
  | { readonly change: 'present' | 'joined' | 'left' | 'expired'; readonly report: InstanceReport }
  | { readonly change: 'changed'; readonly before: InstanceReport; readonly report: InstanceReport }
  | { readonly change: 'invalid'; readonly entry: InvalidEntry }
);

/**
 * Compares two readings of a service.
 *
 * @param before undefined at the first reading of all.
 */
export function findChanges(before: ServiceReport | undefined, after: ServiceReport): ServiceChange[] {
  const { serviceName } = after;
  const known = byId(before?.instances ?? []);
  const present = byId(after.instances);
  const invalid = new Set(after.invalid.map(({ instanceId }) => instanceId));
  const changes: ServiceChange[] = [];

  for (const [instanceId, report] of known) {
    if (present.has(instanceId) || invalid.has(instanceId)) continue;
    // It has expired if its time came without its having deregistered before.
    const expired = before!.now + report.expiresIn <= after.now;
    changes.push({ serviceName, change: expired ? 'expired' : 'left', report });
  }
  for (const [instanceId, report] of present) {
    const earlier = known.get(instanceId);
    if (earlier === undefined) {
      changes.push({ serviceName, change: before === undefined ? 'present' : 'joined', report });
    } else if (!sameInstance(earlier.instance, report.instance)) {
      changes.push({ serviceName, change: 'changed', before: earlier, report });
    }
  }
  const reported = new Set(before?.invalid.map(keyOf));
  for (const entry of after.invalid) {
    if (!reported.has(keyOf(entry))) changes.push({ serviceName, change: 'invalid', entry });
  }
  return changes;
}

/** Lists the fields that differ, each with both values. */
export function listDifferences(before: ServiceInstance, after: ServiceInstance): string[] {
  const [one, other] = [facts(before), facts(after)];
  const names = [...new Set([...one.keys(), ...other.keys()])];
  const changed = names
    .filter((name) => one.get(name) !== other.get(name))
    .map((name) => `${name} ${one.get(name) ?? 'none'} → ${other.get(name) ?? 'none'}`);
  if (before.registeredAt !== after.registeredAt) changed.push('registered again');
  return changed;
}

function facts(instance: ServiceInstance): Map<string, string> {
  const { status, weight, zone, healthCheckUrl, metadata } = instance;
  const facts = { origin: originOf(instance), status, weight: String(weight), zone, healthCheckUrl };
  const entries = Object.entries(metadata).map(([key, value]) => [`metadata.${key}`, value] as const);
  return new Map(
    [...Object.entries(facts), ...entries].filter((fact): fact is [string, string] => !!fact[1]),
  );
}

function byId(reports: readonly InstanceReport[]): Map<string, InstanceReport> {
  return new Map(reports.map((report) => [report.instance.instanceId, report]));
}

function keyOf({ instanceId, reason }: InvalidEntry): string {
  return JSON.stringify([instanceId, reason]);
}
