import {
  type InstanceRegistration,
  isName,
  isStatus,
  type ServiceInstance,
  toInstance,
} from '../discovery/service-instance.ts';

/** The state of the registry of a service. Two equal contents have the same version. */
export interface RegistryState {
  readonly version: number;
  /** Epoch milliseconds by Redis's clock. */
  readonly now: number;
  /**
   * Milliseconds until the next instance expires unless it is kept alive; Infinity without
   * instances.
   */
  readonly nextExpiry: number;
}

/** An instance as it is stored in the registry, not checked yet. */
export interface RegistryEntry {
  readonly instanceId: string;
  readonly record: string;
  readonly status: string | undefined;
  /** Epoch milliseconds by Redis's clock. */
  readonly expiresAt: number;
}

/**
 * Parses the beginning of a script's reply: the version, the time, the time to the next expiry or
 * −1.
 */
export function parseState(reply: unknown[]): RegistryState {
  const [version, now, next] = reply.slice(0, 3).map(Number) as [number, number, number];
  return { version, now, nextExpiry: next >= 0 ? next : Infinity };
}

/** A change, as it was published. */
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

/**
 * Characters. No instance that was checked when it was registered is longer, even with each
 * character escaped.
 */
const MAX_RECORD = 512 * 1024;
const RECORD = /^(\d+) (\d+) (.+)$/s;

/** Characters. A longer message is ignored, and the change is read instead. */
const MAX_CHANGE = MAX_RECORD + 1_024;
const CHANGE = /^(\d+) (\d+) (-1|\d+) (registered|expired|deregistered|status) (\S+)(?: (.+))?$/s;

/** Parses a message. Gives undefined if it is none that the registry publishes. */
export function parseChange(text: string): Change | undefined {
  if (text.length > MAX_CHANGE) return undefined;
  const [, version, now, next, kind, ids = '', rest = ''] = CHANGE.exec(text) ?? [];
  const state = parseState([version, now, next]);
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

/** An entry that is well-formed, if not necessarily true. */
export interface ParsedEntry {
  readonly epoch: string;
  readonly instance: ServiceInstance;
}

/**
 * Parses an entry, which may come from anybody who can write to Redis.
 *
 * @throws InvalidInstanceError, SyntaxError or TypeError saying what is wrong with it.
 */
export function parseEntry(serviceName: string, entry: RegistryEntry): ParsedEntry {
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

/**
 * Reads a status. One that this version does not know may be one of a newer version, and keeps no
 * instance from its calls.
 */
export function readStatus(status: string): ServiceInstance['status'];
export function readStatus(status: string | undefined): ServiceInstance['status'] | undefined;
export function readStatus(status: string | undefined): ServiceInstance['status'] | undefined {
  return status === undefined || isStatus(status) ? status : 'unknown';
}

/** Decodes an instance that this process has registered. */
export function decodeInstance(serviceName: string, instanceId: string, json: string): ServiceInstance {
  return toInstance({ ...JSON.parse(json), serviceName, instanceId });
}

/** Encodes the fields of an instance that the registry does not know by itself. */
export function encodeInstance({
  serviceName: _,
  instanceId: __,
  lastHeartbeat: ___,
  ...rest
}: ServiceInstance): string {
  return JSON.stringify(rest);
}
