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

/** The name under which DNS has the instances of a service. */
export interface DnsName {
  /** The whole name: neither the search domains of the host nor its file of hosts are used. */
  name: string;
  /**
   * `A` or `AAAA`: each IPv4 or IPv6 address of the name is an instance. `SRV` (RFC 2782): each
   * address of each target is one. Default: the IPv4 addresses, or the IPv6 ones of a name that has
   * no others, so that an instance with both counts once; the addresses of targets are found in
   * this way too. While the IPv4 lookup fails, the IPv6 addresses count beside the last IPv4 ones.
   */
  type?: 'A' | 'AAAA' | 'SRV' | undefined;
  /** Default 80, or 443 for `https`. Not with `SRV`, whose records have the port. */
  port?: number | undefined;
  /** Default `http`. */
  protocol?: 'http' | 'https' | undefined;
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

/** The methods of a `Resolver` of `node:dns/promises` that are used. */
export interface DnsResolver {
  resolve4(name: string, options: { ttl: true }): Promise<DnsAddressRecord[]>;
  resolve6(name: string, options: { ttl: true }): Promise<DnsAddressRecord[]>;
  resolveSrv(name: string): Promise<DnsServiceRecord[]>;
}

export interface DnsAnswer {
  /**
   * The instances, in an order that does not depend on that of the records: servers rotate those.
   */
  readonly instances: readonly ServiceInstance[];
  /** Milliseconds for which the addresses may be kept; 0 if that is not known for all. */
  readonly ttl: number;
  /** The errors that left the answer incomplete. */
  readonly flaws: readonly HoldfastError[];
}

/** The address of an instance, with the fields that its record has. */
type RecordAddress = Pick<InstanceRegistration, 'host' | 'port' | 'weight' | 'metadata'>;

/**
 * The most records, targets and instances that are used; a service with more needs another
 * discovery than DNS.
 */
const MAX_RECORDS = 1_000;
/** The most targets whose addresses are looked up at once. */
const MAX_QUERIES = 32;
/**
 * The weight of a record with weight 0 beside others that have weight: next to nothing, but not
 * nothing (RFC 2782).
 */
const SMALL_WEIGHT = 0.01;
/**
 * The share of the timeout after which a lookup that waits for IPv4 addresses asks for IPv6 ones as
 * well.
 */
const SLOW = 1 / 5;
/** Node's code for NXDOMAIN: the name has no records of any type. */
const NO_SUCH_NAME = 'ENOTFOUND';
/** The codes for a name that does not exist, or has no records of the type. */
const ABSENT: readonly unknown[] = [NO_SUCH_NAME, 'ENODATA'];

/** Looks the instances of a service up in DNS, once. */
export class DnsLookup {
  readonly #resolver: DnsResolver;
  readonly #serviceName: string;
  readonly #dnsName: DnsName;
  readonly #before: ReadonlyMap<string, ServiceInstance>;
  /** The time of the first lookup. */
  readonly #registeredAt: number;
  readonly #flaws: HoldfastError[] = [];
  readonly #cancelled: Promise<never>;
  #cancel!: (reason: unknown) => void;
  #timeout = 0;
  #over = false;

  /**
   * @param before the instances of the last lookup: an instance that did not change stays the same
   * object.
   */
  constructor(
    resolver: DnsResolver,
    serviceName: string,
    dnsName: DnsName,
    before: readonly ServiceInstance[] = [],
  ) {
    this.#resolver = resolver;
    this.#serviceName = serviceName;
    this.#dnsName = dnsName;
    this.#registeredAt = before[0]?.registeredAt ?? Date.now();
    this.#before = new Map(before.map((instance) => [instance.instanceId, instance]));
    this.#cancelled = new Promise<never>((_, reject) => {
      this.#cancel = reject;
    });
    this.#cancelled.catch(() => {});
  }

  /**
   * Runs the lookup; to be called once. A query without an answer after `timeout` milliseconds is
   * left out, if others have one.
   *
   * @throws DiscoveryUnavailableError naming the records, with the error of DNS as its cause.
   */
  async run(timeout: number): Promise<DnsAnswer> {
    const expire = () => this.cancel(new TimeoutError(`timed out after ${timeout} ms`, timeout));
    const timer = setTimeout(expire, timeout).unref();
    this.#timeout = timeout;
    try {
      return await (this.#dnsName.type === 'SRV'
        ? this.#byServiceRecords()
        : this.#byAddresses(this.#dnsName.type));
    } finally {
      clearTimeout(timer);
    }
  }

  /** Cancels the lookup: the queries without an answer fail for this reason. */
  cancel(reason: HoldfastError): void {
    this.#over = true;
    this.#cancel(reason);
  }

  async #byAddresses(type: 'A' | 'AAAA' | undefined): Promise<DnsAnswer> {
    const { name, protocol, port = protocol === 'https' ? 443 : 80 } = this.#dnsName;
    const records = await this.#addressesOf(name, type, this.#knownHosts());
    return this.#answer(
      records.map(({ address }) => ({ host: address, port })),
      ttlOf(records),
    );
  }

  async #byServiceRecords(): Promise<DnsAnswer> {
    const { name } = this.#dnsName;
    const records = await this.#query('SRV', name, async () =>
      (await this.#resolver.resolveSrv(name))
        .map((record) => ({ ...record, name: record.name.toLowerCase().replace(/\.$/, '') }))
        .sort(byPreference),
    );
    const aimed = records.filter((record) => record.name !== '');
    // RFC 2782: a single target '.' means that the service is decidedly not available.
    if (aimed.length === 0) return { instances: [], ttl: 0, flaws: [] };
    const used = this.#limit(aimed);
    const targets = new Map<string, readonly DnsAddressRecord[]>();
    await forEachLimited(MAX_QUERIES, [...new Set(used.map((record) => record.name))], async (target) => {
      targets.set(target, await this.#addressesOfTarget(target));
    });
    const weightOf = createWeighting(used);
    const registrations = used.flatMap((record) => {
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
   * Looks up a target. A target whose lookup fails keeps its addresses; one without any address
   * left is gone.
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

  /** Gives the hosts of the last lookup: all, or those of a target. */
  #knownHosts(target?: string): readonly string[] {
    const known = [...this.#before.values()].filter(({ metadata }) => metadata.target === target);
    return [...new Set(known.map(({ host }) => host))];
  }

  /** @param known the addresses that the last lookup found at the name. */
  async #addressesOf(
    name: string,
    type: 'A' | 'AAAA' | undefined,
    known: readonly string[],
  ): Promise<readonly DnsAddressRecord[]> {
    if (type === 'A') return this.#addresses4(name);
    if (type === 'AAAA') return this.#addresses6(name, 'AAAA');
    const query4 = toOutcome(this.#addresses4(name));
    const early = await this.#unlessSlow(query4);
    if (early?.ok) return early.value;
    if (early !== undefined && codeOf((early.error as Error).cause) === NO_SUCH_NAME) throw early.error;
    const [four, six] = await Promise.all([query4, toOutcome(this.#addresses6(name, 'A or AAAA'))]);
    if (four.ok) return four.value;
    if (isAbsence(four.error)) return unwrap(six);
    return this.#withoutAnswer4(four.error as HoldfastError, six, known);
  }

  /**
   * Gives the addresses after the IPv4 lookup failed: the IPv6 ones, so that a fault in one family
   * hides nothing of the other, beside the last IPv4 ones, about which nothing is known. Both are
   * looked up again soon.
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

  /** Gives the result of the query, or undefined if it takes long. */
  async #unlessSlow<T>(query: Promise<T>): Promise<T | undefined> {
    let timer: NodeJS.Timeout | undefined;
    const slow = new Promise<undefined>((resolve) => {
      timer = setTimeout(() => resolve(undefined), SLOW * this.#timeout).unref();
    });
    try {
      return await Promise.race([query, slow]);
    } finally {
      clearTimeout(timer);
    }
  }

  async #addresses4(name: string): Promise<readonly DnsAddressRecord[]> {
    const query = async () => (await this.#resolver.resolve4(name, { ttl: true })).toSorted(byAddress);
    return this.#limit(await this.#query('A', name, query));
  }

  async #addresses6(name: string, types: string): Promise<readonly DnsAddressRecord[]> {
    const query = async () => (await this.#resolver.resolve6(name, { ttl: true })).toSorted(byAddress);
    return this.#limit(await this.#query(types, name, query));
  }

  async #query<R>(types: string, name: string, query: () => Promise<R[]>): Promise<R[]> {
    try {
      const records = await (this.#over ? this.#cancelled : Promise.race([this.#cancelled, query()]));
      if (records.length === 0) throw Object.assign(new Error('no records'), { code: 'ENODATA' });
      return records;
    } catch (cause) {
      const code = codeOf(cause) ?? String(cause);
      const problem = ABSENT.includes(code) ? 'DNS has no' : 'DNS does not tell the';
      throw new DiscoveryUnavailableError(`${problem} ${types} records of ${name}: ${code}`, { cause });
    }
  }

  #limit<R>(records: readonly R[]): readonly R[] {
    if (records.length <= MAX_RECORDS) return records;
    const problem = `DNS has ${records.length} records for '${this.#serviceName}'`;
    this.#flaws.push(new InvalidInstanceError(`${problem}: only ${MAX_RECORDS} are used`));
    return records.slice(0, MAX_RECORDS);
  }

  /** Makes the answer. Of several records with one address the first counts. */
  #answer(addresses: readonly RecordAddress[], ttl: number): DnsAnswer {
    const instances = new Map<string, ServiceInstance>();
    for (const recordAddress of this.#limit(addresses)) {
      try {
        const instance = this.#toInstance(recordAddress);
        if (!instances.has(instance.instanceId)) instances.set(instance.instanceId, instance);
      } catch (error) {
        this.#flaws.push(error as InvalidInstanceError);
      }
    }
    if (instances.size === 0) throw this.#emptyError();
    return { instances: [...instances.values()], ttl, flaws: this.#flaws };
  }

  /** Makes the error of a lookup without instances: an absence only if nothing else failed. */
  #emptyError(): DiscoveryUnavailableError {
    const cause = this.#flaws.find((flaw) => !isAbsence(flaw)) ?? this.#flaws[0];
    if (cause instanceof DiscoveryUnavailableError) return cause;
    const message = `DNS has nothing for '${this.#serviceName}' at ${this.#dnsName.name} that can be used`;
    return new DiscoveryUnavailableError(message, { cause });
  }

  #toInstance(recordAddress: RecordAddress): ServiceInstance {
    const { protocol } = this.#dnsName;
    const address = `${recordAddress.host}:${recordAddress.port}`;
    const instanceId = address.startsWith(':') ? `at:${address}` : address;
    const known = this.#before.get(instanceId);
    const instance = toInstance({
      ...recordAddress,
      serviceName: this.#serviceName,
      instanceId,
      protocol,
      // DNS tells nothing of starts. An address that it leaves out for a while is no new instance.
      registeredAt: this.#registeredAt,
    });
    return known !== undefined && sameInstance(known, instance) ? known : instance;
  }
}

/** Tells whether DNS has answered that there are no records, rather than not answered. */
export function isAbsence(error: unknown): boolean {
  return error instanceof DiscoveryUnavailableError && ABSENT.includes(codeOf(error.cause));
}

/** Makes a record of an address that is to be looked up again as soon as allowed. */
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
 * Creates a function that gives the weight of a record among those of its priority. Without any
 * weight there all records weigh the same. Beside others, 0 is next to nothing (RFC 2782), where to
 * the LoadBalancer it would be nothing.
 */
function createWeighting(records: readonly DnsServiceRecord[]): (record: DnsServiceRecord) => number {
  const levels = groupBy(records, ({ priority }) => priority);
  const weighted = new Set(
    [...levels].filter(([, level]) => level.some(({ weight }) => weight > 0)).map(([priority]) => priority),
  );
  return ({ priority, weight }) => (weighted.has(priority) ? weight || SMALL_WEIGHT : 1);
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

/** Runs the task for each item, for `limit` items at once. */
async function forEachLimited<T>(
  limit: number,
  items: readonly T[],
  task: (item: T) => Promise<void>,
): Promise<void> {
  const left = items.values();
  const worker = async () => {
    for (const item of left) await task(item);
  };
  await Promise.all(Array.from({ length: limit }, worker));
}
