import { isName } from '../discovery/service-instance.ts';
import type { RedisError } from '../errors.ts';
import { groupBy } from '../internal/group-by.ts';
import { isRefusal } from './own-connection.ts';
import type { RedisConnection, Script } from './redis-connection.ts';
import { type RegistryEntry, type RegistryState, stateOf } from './registry-format.ts';
import { DEREGISTER, HEARTBEAT, READ, REGISTER, SET_STATUS, TOUCH } from './registry-scripts.ts';

/** Milliseconds after which the names of services are written again in a cluster. */
const NAMING_INTERVAL = 600_000;

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

/** What a look at the registry finds. */
export interface RegistryLook extends RegistryState {
  /**
   * Why the registry is not kept up to date: Redis rejects all writes, as when it is full; or some instances should
   * have expired, and this client has not the right to take them out. Undefined if it is.
   */
  readonly rejection: string | undefined;
}

export interface RegistryContent extends RegistryLook {
  readonly entries: readonly RegistryEntry[];
  /** Ids of which Redis has only a part, as when it evicted the other: instances do not expire or leave so. */
  readonly damaged: readonly string[];
}

/** An error if it could not be told. */
export type HeartbeatResult = 'alive' | 'unknown' | 'replaced' | Error;

/** The registry of services in Redis: each method is one round trip. See docs/discovery.md for the layout. */
export class ServiceRegistry {
  readonly #connection: RedisConnection;
  readonly #prefix: string;
  /** False once Redis has said that this client may only read: it is not asked again and again, which ACL LOG shows. */
  #mayWrite = true;
  /** True once Redis has let this client run scripts only as one that reads. */
  #readsOnly = false;
  /** `performance.now()` when the names of all services were written last, in a cluster. */
  #namedAt = performance.now();

  readonly #onHealed: (serviceName: string, keys: readonly string[]) => void;

  /** @param onHealed told of keys of a service that held what no registry has written, and were begun anew. */
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

  /** Gives the epoch: that of the registration, or a new one where it has none; undefined if a later one holds the id. */
  async register(registration: Omit<Registration, 'epoch'> & { epoch?: string | undefined }) {
    const { serviceName, instanceId, epoch = '', ttl, json } = registration;
    const keys = this.#keysOf(serviceName);
    const args = [this.channelOf(serviceName), instanceId, epoch, ttl, json, serviceName];
    if (!this.#connection.clustered) keys.push(this.#servicesKey);
    const [given, healed] = (await this.#connection.evaluate(REGISTER, keys, args)) as unknown[];
    this.#tellHealed(serviceName, healed);
    // In another slot; and after it, so that whoever forgets the name meanwhile finds what is registered.
    if (this.#connection.clustered) await this.#addName(serviceName);
    return given === '-1' ? undefined : String(given);
  }

  #tellHealed(serviceName: string, healed: unknown): void {
    if (healed !== '') this.#onHealed(serviceName, String(healed).split(' '));
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
    const services = [...groupBy(registrations, ({ serviceName }) => serviceName).values()];
    this.#nameAgain(services.map(([first]) => first!.serviceName));
    const batches = this.#connection.clustered ? services.map((service) => [service]) : [services];
    const results = new Map<Registration, HeartbeatResult>();
    await Promise.all(batches.map((batch) => this.#beat(batch, results)));
    return registrations.map((registration) => results.get(registration)!);
  }

  async touch(serviceName: string): Promise<RegistryLook> {
    return this.#lookOf(await this.#look(TOUCH, serviceName));
  }

  async read(serviceName: string): Promise<RegistryContent> {
    const answer = await this.#look(READ, serviceName);
    const [records, statuses, leases] = answer.slice(4).map((list) => pairs(list as unknown[]));
    const entries: RegistryEntry[] = [];
    for (const [instanceId, record] of records!) {
      const expiresAt = Number(leases!.get(instanceId));
      const status = statuses!.get(instanceId);
      // What has no lease was never registered, and would stay for ever.
      if (Number.isFinite(expiresAt)) entries.push({ instanceId, record, status, expiresAt });
    }
    const damaged = [
      ...[...records!.keys()].filter((instanceId) => !leases!.has(instanceId)),
      ...[...leases!.keys()].filter((instanceId) => !records!.has(instanceId)),
    ];
    return { ...this.#lookOf(answer), entries, damaged };
  }

  /** The names of all services, in order. Those of which nothing is left are forgotten. */
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

  async #look(script: Script, serviceName: string): Promise<unknown[]> {
    const args = [this.channelOf(serviceName), this.#mayWrite ? 1 : 0];
    const look = (readOnly: boolean) =>
      this.#connection.evaluate(script, this.#keysOf(serviceName), args, readOnly) as Promise<unknown[]>;
    if (this.#readsOnly) return look(true);
    try {
      return await look(false);
    } catch (error) {
      if (!(error as RedisError).denied) throw error;
      const answer = await look(true).catch(() => {
        throw error;
      });
      this.#readsOnly = true;
      return answer;
    }
  }

  #lookOf(answer: unknown[]): RegistryLook {
    const state = stateOf(answer);
    const rejection = String(answer[3]);
    const readOnly = /READONLY|NOPERM|user executing the script|read-only scripts/.test(rejection);
    if (readOnly) this.#mayWrite = false;
    // Whoever may write takes out what has expired, unless it is overdue.
    const inOrder = rejection === '' || (readOnly && state.nextExpiry > 0);
    return { ...state, rejection: inOrder ? undefined : rejection };
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
      const answers = (await this.#connection.evaluate(HEARTBEAT, keys, args)) as unknown[];
      const registrations = services.flat();
      registrations.forEach((registration, index) => {
        results.set(registration, HEARTBEAT_RESULTS[String(answers[index])] ?? 'unknown');
      });
      names.forEach((name, index) => {
        this.#tellHealed(name, answers[registrations.length + index]);
      });
    } catch (error) {
      // What is wrong with the keys of one service must not cost the instances of the others their lives.
      if (services.length > 1 && isRefusal((error as RedisError).cause)) {
        await Promise.all(services.map((service) => this.#beat([service], results)));
      } else {
        for (const registration of services.flat()) results.set(registration, error as RedisError);
      }
    }
  }

  /** In a cluster the names are in a slot of their own, and so are written now and then, should Redis have lost them. */
  #nameAgain(names: readonly string[]): void {
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

  /** True if it is forgotten: it may have been registered between the look and the removal of its name. */
  async #forget(serviceName: string): Promise<boolean> {
    try {
      await this.#connection.run((client) => client.srem(this.#servicesKey, serviceName));
    } catch (error) {
      // Whoever may write will.
      if (isRefusal((error as RedisError).cause)) return true;
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

/** A flat list of keys and values, as Redis gives it, as a map. */
function pairs(list: readonly unknown[]): Map<string, string> {
  const map = new Map<string, string>();
  for (let index = 0; index + 1 < list.length; index += 2)
    map.set(String(list[index]), String(list[index + 1]));
  return map;
}
