import {
  type InstanceRegistration,
  isName,
  isStatus,
  type ServiceInstance,
  toInstance,
} from '../discovery/service-instance.ts';

/** Where the registry of a service stands. Two that are the same have the same version. */
export interface RegistryState {
  readonly version: number;
  /** Redis's clock, epoch milliseconds. */
  readonly now: number;
  /** Milliseconds until an instance expires, if it is not kept alive; Infinity if there is none. */
  readonly nextExpiry: number;
}

/** An instance as it stands in the registry, not yet trusted. */
export interface RegistryEntry {
  readonly instanceId: string;
  readonly record: string;
  readonly status: string | undefined;
  /** Epoch milliseconds by Redis's clock. */
  readonly expiresAt: number;
}

/** What a script gives first: the version, the time, the time to the next expiry or −1. */
export function stateOf(answer: unknown[]): RegistryState {
  const [version, now, next] = answer.slice(0, 3).map(Number) as [number, number, number];
  return { version, now, nextExpiry: next >= 0 ? next : Infinity };
}

/** What changed, as it was published. */
export type Change = RegistryState & (Registered | Gone | StatusChanged);

interface Registered {
  readonly kind: 'registered';
  readonly entry: RegistryEntry;
}

interface Gone {
  readonly kind: 'expired' | 'deregistered';
  readonly instanceIds: readonly string[];
}

interface StatusChanged {
  readonly kind: 'status';
  readonly instanceId: string;
  readonly status: ServiceInstance['status'];
}

/** Longer than any instance that was checked when it was registered can be, each character escaped. */
const MAX_RECORD = 512 * 1024;
const RECORD = /^(\d+) (\d+) (.+)$/s;

/** What is longer is to be read rather than to be heard. */
const MAX_CHANGE = MAX_RECORD + 1_024;
const CHANGE = /^(\d+) (\d+) (-1|\d+) (registered|expired|deregistered|status) (\S+)(?: (.+))?$/s;

/** Undefined if it is nothing that the registry publishes. */
export function parseChange(text: string): Change | undefined {
  if (text.length > MAX_CHANGE) return undefined;
  const [, version, now, next, kind, ids = '', rest = ''] = CHANGE.exec(text) ?? [];
  const state = stateOf([version, now, next]);
  switch (kind) {
    case 'registered': {
      const expiresAt = state.now + Number(RECORD.exec(rest)?.[2] ?? 0);
      return { ...state, kind, entry: { instanceId: ids, record: rest, status: undefined, expiresAt } };
    }
    case 'expired':
    case 'deregistered': {
      const instanceIds = ids.split(',');
      return rest === '' && instanceIds.every(isName) ? { ...state, kind, instanceIds } : undefined;
    }
    case 'status':
      return rest === '' ? undefined : { ...state, kind, instanceId: ids, status: readStatus(rest) };
    default:
      return undefined;
  }
}

/** An entry that can be trusted to be well-formed, if not to be true. */
export interface TrustedEntry {
  readonly epoch: string;
  readonly instance: ServiceInstance;
}

/**
 * Entries come from whoever can write to Redis.
 *
 * @throws InvalidInstanceError, SyntaxError or TypeError saying what is wrong with it.
 */
export function trust(serviceName: string, entry: RegistryEntry): TrustedEntry {
  const { instanceId, record, status, expiresAt } = entry;
  if (record.length > MAX_RECORD) throw new TypeError(`it is longer than ${MAX_RECORD} characters`);
  const [, epoch, ttl, json] = RECORD.exec(record) ?? [];
  if (epoch === undefined || ttl === undefined || json === undefined) {
    throw new TypeError("it must be '<epoch> <ttl> <JSON>'");
  }
  const registered: unknown = JSON.parse(json);
  if (typeof registered !== 'object') throw new TypeError('its JSON must be an object');
  const registration = registered as InstanceRegistration | null;
  const instance = toInstance({
    ...(registration as InstanceRegistration),
    serviceName,
    instanceId,
    status: readStatus(status ?? registration?.status),
    lastHeartbeat: expiresAt - Number(ttl),
  });
  return { epoch, instance };
}

/** A status that this version does not know may be one of a newer version: it keeps no instance from its calls. */
export function readStatus(status: string): ServiceInstance['status'];
export function readStatus(status: string | undefined): ServiceInstance['status'] | undefined;
export function readStatus(status: string | undefined): ServiceInstance['status'] | undefined {
  return status === undefined || isStatus(status) ? status : 'unknown';
}

/** What was registered by this process. */
export function instanceOf(serviceName: string, instanceId: string, json: string): ServiceInstance {
  return toInstance({ ...JSON.parse(json), serviceName, instanceId });
}

/** What is kept of an instance: the rest, the registry knows by itself. */
export function toJson({
  serviceName: _,
  instanceId: __,
  lastHeartbeat: ___,
  ...rest
}: ServiceInstance): string {
  return JSON.stringify(rest);
}
