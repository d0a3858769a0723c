import { isIPv4 } from 'node:net';
import {
  DiscoveryUnavailableError,
  type HoldfastError,
  InvalidInstanceError,
  TimeoutError,
} from '../errors.ts';
import { groupBy } from '../internal/group-by.ts';
import { type Outcome, unwrap } from '../policies/outcome.ts';
import {
  type InstanceRegistration,
  type ServiceInstance,
  sameInstance,
  toInstance,
} from './service-instance.ts';

/** Where DNS has the instances of a service. */
export interface DnsName {
  /** The whole name: neither the search domains of the host nor its file of hosts are looked at. */
  name: string;
  /**
   * `A` or `AAAA`: each IPv4 or IPv6 address of the name is an instance. `SRV` (RFC 2782): each address of
   * each target is one. Default: the IPv4 addresses, or the IPv6 ones of a name that has no others, so that
   * an instance with both counts once; the addresses of targets are found in this way too. While DNS does not
   * tell the IPv4 addresses, the IPv6 ones count beside the last IPv4 ones.
   */
  type?: 'A' | 'AAAA' | 'SRV';
  /** Default 80, or 443 for `https`. Not with `SRV`, whose records say it. */
  port?: number;
  /** Default `http`. */
  protocol?: 'http' | 'https';
}

export interface DnsAddressRecord {
  address: string;
  /** Seconds. */
  ttl: number;
}

export interface DnsServiceRecord {
  /** The target; empty, or `.`, for none. */
  name: string;
  port: number;
  priority: number;
  weight: number;
}

/** What is used of a `Resolver` of `node:dns/promises`. */
export interface DnsResolver {
  resolve4(name: string, options: { ttl: true }): Promise<DnsAddressRecord[]>;
  resolve6(name: string, options: { ttl: true }): Promise<DnsAddressRecord[]>;
  resolveSrv(name: string): Promise<DnsServiceRecord[]>;
}

export interface DnsAnswer {
  /** In an order of their own, not that of the records: servers rotate them. */
  readonly instances: readonly ServiceInstance[];
  /** Milliseconds for which the addresses may be kept; 0 if that is not known of all. */
  readonly ttl: number;
  /** What kept the answer from being whole. */
  readonly flaws: readonly HoldfastError[];
}

/** As many records, targets and instances are taken; a service of more needs another discovery than DNS. */
const MAX_RECORDS = 1_000;
/** Targets whose addresses are asked for at once. */
const MAX_QUESTIONS = 32;
/** Stands for the weight 0 of a record beside others that have weight: next to nothing, but not nothing. */
const SMALL_WEIGHT = 0.01;
/** The share of its time after which a lookup that waits for IPv4 addresses asks for IPv6 ones as well. */
const SLOW = 1 / 5;
/** The code of Node for NXDOMAIN: there are no records of any type. */
const NO_SUCH_NAME = 'ENOTFOUND';
/** That, and the code for a name that exists but has no such records. */
const ABSENT: readonly unknown[] = [NO_SUCH_NAME, 'ENODATA'];

/** Asks DNS once for the instances of a service. */
export class DnsLookup {
  readonly #resolver: DnsResolver;
  readonly #serviceName: string;
  readonly #at: DnsName;
  readonly #before: ReadonlyMap<string, ServiceInstance>;
  readonly #flaws: HoldfastError[] = [];
  readonly #cancelled: Promise<never>;
  #cancel!: (reason: unknown) => void;
  #timeout = 0;
  #over = false;

  /** @param before what the last lookup found: an instance that is still the same stays the same object. */
  constructor(
    resolver: DnsResolver,
    serviceName: string,
    at: DnsName,
    before: readonly ServiceInstance[] = [],
  ) {
    this.#resolver = resolver;
    this.#serviceName = serviceName;
    this.#at = at;
    this.#before = new Map(before.map((instance) => [instance.instanceId, instance]));
    this.#cancelled = new Promise<never>((_, reject) => {
      this.#cancel = reject;
    });
    this.#cancelled.catch(() => {});
  }

  /**
   * To be called once. What is not answered after `timeout` milliseconds is left out, if it is not all.
   *
   * @throws DiscoveryUnavailableError naming the records, with the error of DNS as its cause.
   */
  async run(timeout: number): Promise<DnsAnswer> {
    const expire = () => this.cancel(new TimeoutError(`timed out after ${timeout} ms`, timeout));
    const timer = setTimeout(expire, timeout).unref();
    this.#timeout = timeout;
    try {
      return await (this.#at.type === 'SRV' ? this.#byServiceRecords() : this.#byAddresses(this.#at.type));
    } finally {
      clearTimeout(timer);
    }
  }

  /** Ends the waiting at once: what is not answered yet failed for this reason. */
  cancel(reason: HoldfastError): void {
    this.#over = true;
    this.#cancel(reason);
  }

  async #byAddresses(type: 'A' | 'AAAA' | undefined): Promise<DnsAnswer> {
    const { name, protocol, port = protocol === 'https' ? 443 : 80 } = this.#at;
    const records = await this.#addressesOf(name, type, this.#knownHosts());
    return this.#answer(
      records.map(({ address }) => ({ host: address, port })),
      ttlOf(records),
    );
  }

  async #byServiceRecords(): Promise<DnsAnswer> {
    const { name } = this.#at;
    const records = await this.#ask('SRV', name, async () =>
      (await this.#resolver.resolveSrv(name))
        .map((record) => ({ ...record, name: record.name.toLowerCase().replace(/\.$/, '') }))
        .sort(byPreference),
    );
    const aimed = records.filter((record) => record.name !== '');
    // RFC 2782: a single target '.' means that the service is decidedly not available.
    if (aimed.length === 0) return { instances: [], ttl: 0, flaws: [] };
    const taken = this.#take(aimed);
    const targets = new Map<string, readonly DnsAddressRecord[]>();
    await atMost(MAX_QUESTIONS, [...new Set(taken.map((record) => record.name))], async (target) => {
      targets.set(target, await this.#addressesOfTarget(target));
    });
    const weightOf = weights(taken);
    const registrations = taken.flatMap((record) => {
      const addresses = targets.get(record.name)!;
      return addresses.map(({ address }) => ({
        host: address,
        port: record.port,
        weight: weightOf(record) / addresses.length,
        metadata: { priority: String(record.priority), target: record.name },
      }));
    });
    return this.#answer(registrations, ttlOf([...targets.values()].flat()));
  }

  /**
   * A target that cannot be asked for keeps the addresses that it had; one that has none any more is gone.
   */
  async #addressesOfTarget(target: string): Promise<readonly DnsAddressRecord[]> {
    const known = this.#knownHosts(target);
    try {
      return await this.#addressesOf(target, undefined, known);
    } catch (error) {
      this.#flaws.push(error as HoldfastError);
      return isAbsence(error) ? [] : known.map(toKeptRecord);
    }
  }

  /** The hosts of the last lookup: all, or those of a target. */
  #knownHosts(target?: string): readonly string[] {
    const known = [...this.#before.values()].filter(({ metadata }) => metadata.target === target);
    return [...new Set(known.map(({ host }) => host))];
  }

  /** @param known what the last lookup found at the name. */
  async #addressesOf(
    name: string,
    type: 'A' | 'AAAA' | undefined,
    known: readonly string[],
  ): Promise<readonly DnsAddressRecord[]> {
    if (type === 'A') return this.#addresses4(name);
    if (type === 'AAAA') return this.#addresses6(name, 'AAAA');
    const asking = toOutcome(this.#addresses4(name));
    const early = await this.#unlessSlow(asking);
    if (early?.ok) return early.value;
    if (early !== undefined && codeOf((early.error as Error).cause) === NO_SUCH_NAME) throw early.error;
    const [four, six] = await Promise.all([asking, toOutcome(this.#addresses6(name, 'A or AAAA'))]);
    if (four.ok) return four.value;
    if (isAbsence(four.error)) return unwrap(six);
    return this.#withoutAnswer4(four.error as HoldfastError, six, known);
  }

  /**
   * DNS does not tell the IPv4 addresses. The IPv6 ones that it tells count, so that a fault in one family hides
   * nothing of the other, beside the last IPv4 ones, of which nothing is said. Both are asked for again soon.
   */
  #withoutAnswer4(
    error: HoldfastError,
    six: Outcome<readonly DnsAddressRecord[]>,
    known: readonly string[],
  ): readonly DnsAddressRecord[] {
    if (!six.ok) throw error;
    this.#flaws.push(error);
    return [...known.filter(isIPv4), ...six.value.map(({ address }) => address)].map(toKeptRecord);
  }

  /** Undefined if it takes long. */
  async #unlessSlow<T>(asking: Promise<T>): Promise<T | undefined> {
    let timer: NodeJS.Timeout | undefined;
    const slow = new Promise<undefined>((resolve) => {
      timer = setTimeout(() => resolve(undefined), SLOW * this.#timeout).unref();
    });
    try {
      return await Promise.race([asking, slow]);
    } finally {
      clearTimeout(timer);
    }
  }

  async #addresses4(name: string): Promise<readonly DnsAddressRecord[]> {
    const ask = async () => (await this.#resolver.resolve4(name, { ttl: true })).toSorted(byAddress);
    return this.#take(await this.#ask('A', name, ask));
  }

  async #addresses6(name: string, asked: string): Promise<readonly DnsAddressRecord[]> {
    const ask = async () => (await this.#resolver.resolve6(name, { ttl: true })).toSorted(byAddress);
    return this.#take(await this.#ask(asked, name, ask));
  }

  async #ask<R>(asked: string, name: string, ask: () => Promise<R[]>): Promise<R[]> {
    try {
      const records = await (this.#over ? this.#cancelled : Promise.race([this.#cancelled, ask()]));
      if (records.length === 0) throw Object.assign(new Error('no records'), { code: 'ENODATA' });
      return records;
    } catch (cause) {
      const code = codeOf(cause) ?? String(cause);
      const problem = ABSENT.includes(code) ? 'DNS has no' : 'DNS does not tell the';
      throw new DiscoveryUnavailableError(`${problem} ${asked} records of ${name}: ${code}`, { cause });
    }
  }

  #take<R>(records: readonly R[]): readonly R[] {
    if (records.length <= MAX_RECORDS) return records;
    const problem = `DNS has ${records.length} records for '${this.#serviceName}'`;
    this.#flaws.push(new InvalidInstanceError(`${problem}: only ${MAX_RECORDS} are taken`));
    return records.slice(0, MAX_RECORDS);
  }

  /** Of those at the same place the first counts. */
  #answer(places: readonly Pick<InstanceRegistration, 'host' | 'port'>[], ttl: number): DnsAnswer {
    const instances = new Map<string, ServiceInstance>();
    for (const place of this.#take(places)) {
      try {
        const instance = this.#instance(place);
        if (!instances.has(instance.instanceId)) instances.set(instance.instanceId, instance);
      } catch (error) {
        this.#flaws.push(error as InvalidInstanceError);
      }
    }
    if (instances.size === 0) throw this.#nothing();
    return { instances: [...instances.values()], ttl, flaws: this.#flaws };
  }

  /** It is an absence only if there is nothing else the matter. */
  #nothing(): DiscoveryUnavailableError {
    const cause = this.#flaws.find((flaw) => !isAbsence(flaw)) ?? this.#flaws[0];
    if (cause instanceof DiscoveryUnavailableError) return cause;
    const message = `DNS has nothing for '${this.#serviceName}' at ${this.#at.name} that can be used`;
    return new DiscoveryUnavailableError(message, { cause });
  }

  #instance(place: Pick<InstanceRegistration, 'host' | 'port'>): ServiceInstance {
    const { protocol } = this.#at;
    const address = `${place.host}:${place.port}`;
    const instanceId = address.startsWith(':') ? `at:${address}` : address;
    const known = this.#before.get(instanceId);
    const instance = toInstance({
      ...place,
      serviceName: this.#serviceName,
      instanceId,
      protocol,
      registeredAt: known?.registeredAt,
    });
    return known !== undefined && sameInstance(known, instance) ? known : instance;
  }
}

/** Whether DNS has said that there is nothing, which is not the same as not having said anything. */
export function isAbsence(error: unknown): boolean {
  return error instanceof DiscoveryUnavailableError && ABSENT.includes(codeOf(error.cause));
}

/** A record of an address that is to be asked for again as soon as may be. */
function toKeptRecord(address: string): DnsAddressRecord {
  return { address, ttl: 0 };
}

function toOutcome<T>(promise: Promise<T>): Promise<Outcome<T>> {
  return promise.then(
    (value): Outcome<T> => ({ ok: true, value }),
    (error: unknown): Outcome<T> => ({ ok: false, error }),
  );
}

function codeOf(error: unknown): unknown {
  return (error as { code?: unknown } | undefined)?.code;
}

/**
 * What a record weighs among those of its priority. Without any weight there all weigh the same; beside
 * others, 0 is next to nothing (RFC 2782), where to the LoadBalancer it would be nothing.
 */
function weights(records: readonly DnsServiceRecord[]): (record: DnsServiceRecord) => number {
  const levels = groupBy(records, ({ priority }) => priority);
  const weighed = new Set(
    [...levels].filter(([, level]) => level.some(({ weight }) => weight > 0)).map(([priority]) => priority),
  );
  return ({ priority, weight }) => (weighed.has(priority) ? weight || SMALL_WEIGHT : 1);
}

function ttlOf(records: readonly DnsAddressRecord[]): number {
  return 1_000 * records.reduce((least, { ttl }) => Math.min(least, ttl || 0), Infinity);
}

function byAddress(one: DnsAddressRecord, other: DnsAddressRecord): number {
  return compare(one.address, other.address);
}

function byPreference(one: DnsServiceRecord, other: DnsServiceRecord): number {
  return (
    one.priority - other.priority ||
    other.weight - one.weight ||
    compare(one.name, other.name) ||
    one.port - other.port
  );
}

function compare(one: string, other: string): number {
  return one < other ? -1 : Number(one > other);
}

/** Does the work for each item, for so many at once. */
async function atMost<T>(
  limit: number,
  items: readonly T[],
  work: (item: T) => Promise<void>,
): Promise<void> {
  const left = items.values();
  const worker = async () => {
    for (const item of left) await work(item);
  };
  await Promise.all(Array.from({ length: limit }, worker));
}
