import {
  type InstanceRegistration,
  type ServiceInstance,
  toInstance,
} from '../discovery/service-instance.ts';
import { groupBy } from '../internal/group-by.ts';
import type { RedisConnection, Script } from './redis-connection.ts';
import { DEREGISTER, HEARTBEAT, READ, REGISTER, SET_STATUS, TOUCH } from './registry-scripts.ts';

/** What the registry keeps of an instance. */
export interface Registration {
  readonly serviceName: string;
  readonly instanceId: string;
  /** A number that is larger with each start; of two processes with one id the later start counts. */
  readonly epoch: string;
  /** Milliseconds. */
  readonly ttl: number;
  /** What was registered, as JSON. */
  readonly json: string;
}

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

export interface RegistryContent extends RegistryState {
  readonly entries: readonly RegistryEntry[];
}

/** An error if it could not be told. */
export type HeartbeatResult = 'alive' | 'unknown' | 'replaced' | Error;

/** The registry of services in Redis: each method is one round trip. See docs/discovery.md for the layout. */
export class ServiceRegistry {
  readonly #connection: RedisConnection;
  readonly #prefix: string;

  constructor(connection: RedisConnection, keyPrefix: string) {
    this.#connection = connection;
    this.#prefix = keyPrefix;
  }

  channelOf(serviceName: string): string {
    return `${this.#prefix}:{${serviceName}}:changes`;
  }

  /** Gives the epoch: that of the registration, or a new one where it has none; undefined if a later one holds the id. */
  async register(registration: Omit<Registration, 'epoch'> & { epoch?: string | undefined }) {
    const { serviceName, instanceId, epoch = '', ttl, json } = registration;
    const [given] = await Promise.all([
      this.#evaluate(REGISTER, serviceName, instanceId, epoch, ttl, json),
      // In another slot, for whoever wants to know which services there are.
      this.#connection.run((client) => client.sadd(this.#servicesKey, serviceName)),
    ]);
    return given === '-1' ? undefined : String(given);
  }

  /** @param epoch undefined for whoever holds the id. */
  async deregister(serviceName: string, instanceId: string, epoch: string | undefined): Promise<boolean> {
    return Number(await this.#evaluate(DEREGISTER, serviceName, instanceId, epoch ?? '')) === 1;
  }

  async setStatus(serviceName: string, instanceId: string, status: string): Promise<boolean> {
    return Number(await this.#evaluate(SET_STATUS, serviceName, instanceId, status)) === 1;
  }

  /** Keeps all of them alive, in one command; in a cluster one for each service. In the order given. */
  async heartbeat(registrations: readonly Registration[]): Promise<HeartbeatResult[]> {
    const services = groupBy(registrations, ({ serviceName }) => serviceName);
    const batches = this.#connection.clustered ? [...services].map((service) => [service]) : [[...services]];
    const results = new Map<Registration, HeartbeatResult>();
    await Promise.all(
      batches.map(async (batch) => {
        const beaten = batch.flatMap(([, group]) => group);
        const answers = await this.#beat(batch).catch((error: Error) => beaten.map(() => error));
        beaten.forEach((registration, index) => {
          results.set(registration, answers[index] ?? 'unknown');
        });
      }),
    );
    return registrations.map((registration) => results.get(registration)!);
  }

  async touch(serviceName: string): Promise<RegistryState> {
    return stateOf((await this.#evaluate(TOUCH, serviceName)) as unknown[]);
  }

  async read(serviceName: string): Promise<RegistryContent> {
    const answer = (await this.#evaluate(READ, serviceName)) as unknown[];
    const [records, statuses, leases] = answer.slice(3).map((list) => pairs(list as unknown[]));
    const entries: RegistryEntry[] = [];
    for (const [instanceId, record] of records!) {
      const expiresAt = Number(leases!.get(instanceId));
      const status = statuses!.get(instanceId);
      // What has no lease was never registered, and would stay for ever.
      if (Number.isFinite(expiresAt)) entries.push({ instanceId, record, status, expiresAt });
    }
    return { ...stateOf(answer), entries };
  }

  /** The names of all services, in order. Those of which nothing is left are forgotten. */
  async services(): Promise<string[]> {
    const names = await this.#connection.run((client) => client.smembers(this.#servicesKey));
    const there = await Promise.all(
      names.map(async (name) => (await this.#exists(name)) || !(await this.#forget(name))),
    );
    return names.filter((_, index) => there[index]).sort();
  }

  get #servicesKey(): string {
    return `${this.#prefix}:services`;
  }

  #keysOf(serviceName: string): string[] {
    return ['instances', 'leases', 'statuses', 'meta'].map(
      (key) => `${this.#prefix}:{${serviceName}}:${key}`,
    );
  }

  #evaluate(script: Script, serviceName: string, ...args: (string | number)[]): Promise<unknown> {
    return this.#connection.evaluate(script, this.#keysOf(serviceName), [
      this.channelOf(serviceName),
      ...args,
    ]);
  }

  async #beat(services: readonly [string, readonly Registration[]][]): Promise<HeartbeatResult[]> {
    const keys = services.flatMap(([serviceName]) => this.#keysOf(serviceName));
    const args = services.flatMap(([serviceName, group]) => [
      this.channelOf(serviceName),
      group[0]!.ttl,
      group.length,
      ...group.flatMap(({ instanceId, epoch }) => [instanceId, epoch]),
    ]);
    const answers = (await this.#connection.evaluate(HEARTBEAT, keys, args)) as unknown[];
    return answers.map((answer) => HEARTBEAT_RESULTS[String(answer)] ?? 'unknown');
  }

  async #exists(serviceName: string): Promise<boolean> {
    const meta = this.#keysOf(serviceName)[3]!;
    return (await this.#connection.run((client) => client.exists(meta))) === 1;
  }

  /** True if it is forgotten: it may have been registered between the look and the removal of its name. */
  async #forget(serviceName: string): Promise<boolean> {
    await this.#connection.run((client) => client.srem(this.#servicesKey, serviceName));
    if (!(await this.#exists(serviceName))) return true;
    await this.#connection.run((client) => client.sadd(this.#servicesKey, serviceName));
    return false;
  }
}

const HEARTBEAT_RESULTS: Record<string, HeartbeatResult> = { '1': 'alive', '0': 'unknown', '-1': 'replaced' };

function stateOf(answer: unknown[]): RegistryState {
  const [version, now, next] = answer.map(Number) as [number, number, number];
  return { version, now, nextExpiry: next < 0 ? Infinity : next };
}

/** A flat list of keys and values, as Redis gives it, as a map. */
function pairs(list: readonly unknown[]): Map<string, string> {
  const map = new Map<string, string>();
  for (let index = 0; index + 1 < list.length; index += 2)
    map.set(String(list[index]), String(list[index + 1]));
  return map;
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
  readonly status: string;
}

const CHANGE = /^(\d+) (\d+) (-1|\d+) (registered|expired|deregistered|status) (\S+)(?: (.+))?$/s;

/** Undefined if it is nothing that the registry publishes. */
export function parseChange(text: string): Change | undefined {
  const [, version, now, next, kind, ids = '', rest = ''] = CHANGE.exec(text) ?? [];
  const state = stateOf([version, now, next]);
  switch (kind) {
    case 'registered': {
      const expiresAt = state.now + Number(RECORD.exec(rest)?.[2] ?? 0);
      return { ...state, kind, entry: { instanceId: ids, record: rest, status: undefined, expiresAt } };
    }
    case 'expired':
    case 'deregistered':
      return { ...state, kind, instanceIds: ids.split(',') };
    case 'status':
      return { ...state, kind, instanceId: ids, status: rest };
    default:
      return undefined;
  }
}

/** Longer than any instance that was checked when it was registered can be. */
const MAX_RECORD = 256 * 1024;
const RECORD = /^(\d+) (\d+) (.+)$/s;

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
  const registered = JSON.parse(json) as InstanceRegistration;
  const lastHeartbeat = expiresAt - Number(ttl);
  const instance = toInstance({
    ...registered,
    serviceName,
    instanceId,
    status: (status as ServiceInstance['status'] | undefined) ?? registered.status,
    lastHeartbeat,
  });
  return { epoch, instance };
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
