import { isName } from '../discovery/service-instance.ts';
import type { RedisError } from '../errors.ts';
import { groupBy } from '../internal/group-by.ts';
import { isReplyError } from './ioredis-errors.ts';
import type { RedisConnection, Script } from './redis-connection.ts';
import { parseState, type RegistryEntry, type RegistryState } from './registry-format.ts';
import { DEREGISTER, HEARTBEAT, READ, REGISTER, SET_STATUS, TOUCH } from './registry-scripts.ts';

/** Milliseconds after which the names of services are written again in a cluster. */
const NAMING_INTERVAL = 600_000;

/** The registration of an instance. */
export interface Registration {
  readonly serviceName: string;
  readonly instanceId: string;
  /**
   * A number that grows with each start. Of two processes with one id the one with the later start
   * counts.
   */
  readonly epoch: string;
  /** Milliseconds. */
  readonly ttl: number;
  /** The registered fields, as JSON. */
  readonly json: string;
}

/** The state of a registry, and whether it is maintained. */
export interface TouchResult extends RegistryState {
  /**
   * Why the registry is not maintained: Redis rejects all writes, as when it is full; or some
   * instances should have expired, and this client has not the right to remove them. Undefined if
   * the registry is maintained.
   */
  readonly rejection: string | undefined;
}

export interface RegistryContent extends TouchResult {
  readonly entries: readonly RegistryEntry[];
  /**
   * The ids of which Redis has only a part, as when it evicted the other part: instances do not
   * expire or leave like that.
   */
  readonly damaged: readonly string[];
}

/** The result of a heartbeat; an error if Redis could not be asked. */
export type HeartbeatResult = 'alive' | 'unknown' | 'replaced' | Error;

/**
 * Reads and writes the registry of services in Redis. Each method is one round trip.
 * docs/discovery.md tells the layout.
 */
export class ServiceRegistry {
  readonly #connection: RedisConnection;
  readonly #prefix: string;
  /**
   * False once Redis has denied this client a write: it is not asked again and again, which ACL LOG
   * would show.
   */
  #mayWrite = true;
  /** True once Redis has let this client run scripts only as read-only ones. */
  #readsOnly = false;
  /** `performance.now()` when the names of all services were written last, in a cluster. */
  #namedAt = performance.now();

  readonly #onHealed: (serviceName: string, keys: readonly string[]) => void;

  /**
   * @param onHealed is called with the keys of a service that held what no registry has written,
   * and were begun anew.
   */
  constructor(
    connection: RedisConnection,
    keyPrefix: string,
    onHealed: (serviceName: string, keys: readonly string[]) => void = () => {},
  ) {
    this.#connection = connection;
    this.#prefix = keyPrefix;
    this.#onHealed = onHealed;
  }

  channelOf(serviceName: string): string {
    return `${this.#prefix}:{${serviceName}}:changes`;
  }

  /**
   * Registers an instance. Gives the epoch of the registration, or a new one where it has none;
   * undefined if a later epoch has the id.
   */
  async register(registration: Omit<Registration, 'epoch'> & { epoch?: string | undefined }) {
    const { serviceName, instanceId, epoch = '', ttl, json } = registration;
    const keys = this.#keysOf(serviceName);
    const args = [this.channelOf(serviceName), instanceId, epoch, ttl, json, serviceName];
    if (!this.#connection.clustered) keys.push(this.#servicesKey);
    const [given, healed] = (await this.#connection.evaluate(REGISTER, keys, args)) as unknown[];
    this.#tellHealed(serviceName, healed);
    // The name is in another slot. It is written last, so that a client that forgets the name
    // meanwhile finds the instance.
    if (this.#connection.clustered) await this.#addName(serviceName);
    return given === '-1' ? undefined : String(given);
  }

  #tellHealed(serviceName: string, healed: unknown): void {
    if (healed !== '') this.#onHealed(serviceName, String(healed).split(' '));
  }

  /** @param epoch undefined to deregister the instance whatever its epoch is. */
  async deregister(serviceName: string, instanceId: string, epoch: string | undefined): Promise<boolean> {
    return Number(await this.#evaluate(DEREGISTER, serviceName, instanceId, epoch ?? '')) === 1;
  }

  async setStatus(serviceName: string, instanceId: string, status: string): Promise<boolean> {
    return Number(await this.#evaluate(SET_STATUS, serviceName, instanceId, status)) === 1;
  }

  /**
   * Keeps instances alive with one command, in a cluster with one for each service. Gives the
   * results in the order given.
   */
  async heartbeat(registrations: readonly Registration[]): Promise<HeartbeatResult[]> {
    const services = [...groupBy(registrations, ({ serviceName }) => serviceName).values()];
    this.#renewNames(services.map(([first]) => first!.serviceName));
    const batches = this.#connection.clustered ? services.map((service) => [service]) : [services];
    const results = new Map<Registration, HeartbeatResult>();
    await Promise.all(batches.map((batch) => this.#beat(batch, results)));
    return registrations.map((registration) => results.get(registration)!);
  }

  async touch(serviceName: string): Promise<TouchResult> {
    return this.#toTouchResult(await this.#evaluateRead(TOUCH, serviceName));
  }

  async read(serviceName: string): Promise<RegistryContent> {
    const reply = await this.#evaluateRead(READ, serviceName);
    const [records, statuses, leases] = reply.slice(4).map((list) => toMap(list as unknown[]));
    const entries: RegistryEntry[] = [];
    for (const [instanceId, record] of records!) {
      const expiresAt = Number(leases!.get(instanceId));
      const status = statuses!.get(instanceId);
      // An instance without an expiry was never registered, and would stay for ever.
      if (Number.isFinite(expiresAt)) entries.push({ instanceId, record, status, expiresAt });
    }
    const damaged = [
      ...[...records!.keys()].filter((instanceId) => !leases!.has(instanceId)),
      ...[...leases!.keys()].filter((instanceId) => !records!.has(instanceId)),
    ];
    return { ...this.#toTouchResult(reply), entries, damaged };
  }

  /**
   * Gives the names of all services, in order, and forgets the names of services of which nothing
   * is left.
   */
  async services(): Promise<string[]> {
    const members = await this.#connection.run((client) => client.smembers(this.#servicesKey));
    const names = [...members].filter(isName).sort();
    const left = await Promise.all(
      names.map(async (name) => (await this.#isLeft(name)) || !(await this.#forget(name))),
    );
    return names.filter((_, index) => left[index]);
  }

  get #servicesKey(): string {
    return `${this.#prefix}:services`;
  }

  #keysOf(serviceName: string): string[] {
    return ['instances', 'leases', 'statuses', 'meta'].map(
      (key) => `${this.#prefix}:{${serviceName}}:${key}`,
    );
  }

  async #evaluateRead(script: Script, serviceName: string): Promise<unknown[]> {
    const args = [this.channelOf(serviceName), this.#mayWrite ? 1 : 0];
    const evaluate = (readOnly: boolean) =>
      this.#connection.evaluate(script, this.#keysOf(serviceName), args, readOnly) as Promise<unknown[]>;
    if (this.#readsOnly) return evaluate(true);
    try {
      return await evaluate(false);
    } catch (error) {
      if (!(error as RedisError).denied) throw error;
      const reply = await evaluate(true).catch(() => {
        throw error;
      });
      this.#readsOnly = true;
      return reply;
    }
  }

  #toTouchResult(reply: unknown[]): TouchResult {
    const state = parseState(reply);
    const rejection = String(reply[3]);
    const readOnly = /READONLY|NOPERM|user executing the script|read-only scripts/.test(rejection);
    if (readOnly) this.#mayWrite = false;
    // Clients that may write remove what has expired, unless it is overdue.
    const maintained = rejection === '' || (readOnly && state.nextExpiry > 0);
    return { ...state, rejection: maintained ? undefined : rejection };
  }

  #evaluate(script: Script, serviceName: string, ...args: (string | number)[]): Promise<unknown> {
    return this.#connection.evaluate(script, this.#keysOf(serviceName), [
      this.channelOf(serviceName),
      ...args,
    ]);
  }

  async #beat(
    services: readonly Registration[][],
    results: Map<Registration, HeartbeatResult>,
  ): Promise<void> {
    const names = services.map((group) => group[0]!.serviceName);
    const keys = names.flatMap((name) => this.#keysOf(name));
    const args = services.flatMap((group, index) => [
      this.channelOf(names[index]!),
      group[0]!.ttl,
      group.length,
      ...group.flatMap(({ instanceId, epoch }) => [instanceId, epoch]),
    ]);
    args.unshift(services.length);
    if (!this.#connection.clustered) {
      keys.push(this.#servicesKey);
      args.push(...names);
    }
    try {
      const replies = (await this.#connection.evaluate(HEARTBEAT, keys, args)) as unknown[];
      const registrations = services.flat();
      registrations.forEach((registration, index) => {
        results.set(registration, HEARTBEAT_RESULTS[String(replies[index])] ?? 'unknown');
      });
      names.forEach((name, index) => {
        this.#tellHealed(name, replies[registrations.length + index]);
      });
    } catch (error) {
      // Broken keys of one service must not let the instances of other services expire.
      if (services.length > 1 && isReplyError((error as RedisError).cause)) {
        await Promise.all(services.map((service) => this.#beat([service], results)));
      } else {
        for (const registration of services.flat()) results.set(registration, error as RedisError);
      }
    }
  }

  /**
   * Writes the names now and then in a cluster, where they are in a slot of their own, in case
   * Redis has lost them.
   */
  #renewNames(names: readonly string[]): void {
    if (!this.#connection.clustered || performance.now() - this.#namedAt < NAMING_INTERVAL) return;
    this.#namedAt = performance.now();
    this.#connection.run((client) => client.sadd(this.#servicesKey, ...names)).catch(() => {});
  }

  async #isLeft(serviceName: string): Promise<boolean> {
    return (await this.touch(serviceName)).version > 0;
  }

  async #addName(serviceName: string): Promise<void> {
    const add = () => this.#connection.run((client) => client.sadd(this.#servicesKey, serviceName));
    try {
      await add();
    } catch (error) {
      if (!isWrongType(error)) throw error;
      await this.#connection.run((client) => client.del(this.#servicesKey));
      await add();
      this.#onHealed(serviceName, [this.#servicesKey]);
    }
  }

  /**
   * Removes the name of a service. Gives false if the service was registered between the check and
   * the removal.
   */
  async #forget(serviceName: string): Promise<boolean> {
    try {
      await this.#connection.run((client) => client.srem(this.#servicesKey, serviceName));
    } catch (error) {
      // A client that may write will remove it.
      if (isReplyError((error as RedisError).cause)) return true;
      throw error;
    }
    if (!(await this.#isLeft(serviceName))) return true;
    await this.#addName(serviceName);
    return false;
  }
}

function isWrongType(error: unknown): boolean {
  const { cause } = error as RedisError;
  return cause instanceof Error && cause.message.startsWith('WRONGTYPE');
}

const HEARTBEAT_RESULTS: Record<string, HeartbeatResult> = { '1': 'alive', '0': 'unknown', '-1': 'replaced' };

/** Makes a map of a flat list of keys and values, as Redis gives it. */
function toMap(list: readonly unknown[]): Map<string, string> {
  const map = new Map<string, string>();
  for (let index = 0; index + 1 < list.length; index += 2)
    map.set(String(list[index]), String(list[index + 1]));
  return map;
}
