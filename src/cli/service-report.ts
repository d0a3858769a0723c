import { originOf, type ServiceInstance } from '../discovery/service-instance.ts';
import type { RedisError } from '../errors.ts';
import { isReplyError } from '../redis/ioredis-errors.ts';
import { parseEntry, type RegistryEntry } from '../redis/registry-format.ts';
import type { RegistryContent, ServiceRegistry } from '../redis/service-registry.ts';

export interface InstanceReport {
  readonly instance: ServiceInstance;
  /** Milliseconds since its last heartbeat, by Redis's clock. */
  readonly heartbeatAge: number;
  /** Milliseconds until it expires, unless there is another heartbeat. */
  readonly expiresIn: number;
}

/** An entry in Redis that is no valid registration. */
export interface InvalidEntry {
  /** An id that may be malformed; undefined where the whole service cannot be read. */
  readonly instanceId: string | undefined;
  readonly reason: string;
}

/** The content of the registry for a service. */
export interface ServiceReport {
  readonly serviceName: string;
  /**
   * The version of the registry, which grows with each change; 0 if nothing was ever registered.
   */
  readonly version: number;
  /** Epoch milliseconds by Redis's clock. */
  readonly now: number;
  /** The instances in the order of their ids. */
  readonly instances: readonly InstanceReport[];
  readonly invalid: readonly InvalidEntry[];
}

/** The most services that are read at once. */
const BATCH = 50;

/** Reads services. Gives the reports in the order of the names. */
export async function readServices(
  registry: ServiceRegistry,
  names: readonly string[],
): Promise<ServiceReport[]> {
  const reports: ServiceReport[] = [];
  for (let first = 0; first < names.length; first += BATCH) {
    const batch = names.slice(first, first + BATCH);
    reports.push(...(await Promise.all(batch.map((name) => readService(registry, name)))));
  }
  return reports;
}

async function readService(registry: ServiceRegistry, serviceName: string): Promise<ServiceReport> {
  try {
    return toReport(serviceName, await registry.read(serviceName));
  } catch (error) {
    const reason = keyError(error);
    if (reason === undefined) throw error;
    const invalid = [{ instanceId: undefined, reason }];
    return { serviceName, version: 0, now: 0, instances: [], invalid };
  }
}

/**
 * Gives the error of Redis about malformed keys, which concern no other service; undefined for
 * another error.
 */
function keyError(error: unknown): string | undefined {
  const { cause } = error as RedisError;
  if (!isReplyError(cause)) return undefined;
  const { message } = cause as Error;
  return /^(WRONGTYPE|ERR) /.test(message) ? message : undefined;
}

export function toReport(serviceName: string, content: RegistryContent): ServiceReport {
  const instances: InstanceReport[] = [];
  const invalid: InvalidEntry[] = [];
  const byId = content.entries.toSorted(({ instanceId: one }, { instanceId: other }) =>
    one < other ? -1 : 1,
  );
  for (const entry of byId) {
    try {
      instances.push(toInstanceReport(serviceName, entry, content.now));
    } catch (error) {
      invalid.push({ instanceId: entry.instanceId, reason: (error as Error).message });
    }
  }
  return { serviceName, version: content.version, now: content.now, instances, invalid };
}

function toInstanceReport(serviceName: string, entry: RegistryEntry, now: number): InstanceReport {
  const { instance } = parseEntry(serviceName, entry);
  return {
    instance,
    heartbeatAge: Math.max(0, now - instance.lastHeartbeat),
    expiresIn: Math.max(0, entry.expiresAt - now),
  };
}

/** Gives an instance as `--json` shows it. */
export function toJsonInstance({ instance, heartbeatAge, expiresIn }: InstanceReport) {
  return { ...instance, origin: originOf(instance), heartbeatAge, expiresIn };
}

/** Gives a service as `--json` shows it. */
export function toJsonService(report: ServiceReport) {
  return { ...report, instances: report.instances.map(toJsonInstance) };
}
