import { Resolver } from 'node:dns/promises';
import { isIP } from 'node:net';
import {
  ClosedError,
  DiscoveryUnavailableError,
  type HoldfastError,
  InvalidInstanceError,
} from '../errors.ts';
import { decided } from '../internal/decision.ts';
import { Emitter } from '../internal/emitter.ts';
import { jitter } from '../internal/jitter.ts';
import {
  anObject,
  anyDuration,
  type Check,
  either,
  hasMethods,
  integer,
  isFunction,
  MAX_DELAY,
  number,
  oneOf,
  requireOption,
  validateOptions,
} from '../internal/validate.ts';
import { type Backoff, exponentialBackoff } from '../policies/backoff.ts';
import { type DnsAnswer, DnsLookup, type DnsName, type DnsResolver, isAbsence } from './dns-lookup.ts';
import { OverlaidList } from './overlaid-list.ts';
import type { InstanceListener, ServiceDiscovery, Unsubscribe } from './service-discovery.ts';
import { checkServiceName, type InstanceChanges, isName, type ServiceInstance } from './service-instance.ts';
import { Watchers } from './watchers.ts';

export interface DnsServiceDiscoveryOptions {
  /**
   * The DNS name of each service, by the name of the service; or a function that gives the DNS name
   * of any service at once, and undefined where there is no such service. The function may be
   * called with a name that came with a request.
   */
  services: Readonly<Record<string, DnsName>> | ((serviceName: string) => DnsName | undefined);
  /**
   * The resolver, such as a `Resolver` of `node:dns/promises` with servers of its own; `close()`
   * leaves it as it is. Default: the servers of the host's configuration, each asked at most twice
   * in a lookup.
   */
  resolver?: DnsResolver | undefined;
  /**
   * The least milliseconds from an answer to the next lookup, unless `refresh()` asks for one.
   * Default 5,000, or `maxTtl` if that is less.
   */
  minTtl?: number | undefined;
  /**
   * The most milliseconds from one lookup to the next. Default 30,000, or `minTtl` if that is more.
   */
  maxTtl?: number | undefined;
  /** Milliseconds for a lookup with all its queries. Default 5,000. */
  timeout?: number | undefined;
  /**
   * Milliseconds for which the last instances are kept once DNS answers that there are none, or no
   * such name. Infinity keeps them for ever, 0 not at all. Default 300,000.
   */
  absenceGrace?: number | undefined;
  /** A source of numbers from 0 to 1. Default Math.random. */
  random?: (() => number) | undefined;
}

export interface DnsServiceDiscoveryEvents {
  /**
   * A lookup failed, or a part of it: a target has no address, a record cannot be used. The rest of
   * the answer is used, or the last instances if there is none.
   */
  failure: [event: { serviceName: string; error: HoldfastError }];
}

/** The state of a service that is watched, or was used lately. */
class Service {
  readonly name: string;
  readonly dnsName: DnsName;
  /** The last good answer. */
  list: OverlaidList | undefined = undefined;
  /** The error of the last failed lookup, which callers get while no answer is known. */
  failure: unknown = undefined;
  failures = 0;
  /** When `refresh()` was called last, and the first of the calls since the list last changed. */
  hintedAt = -Infinity;
  doubtedSince = -Infinity;
  /** When DNS began to answer that there is nothing. */
  absentSince: number | undefined = undefined;
  /**
   * When the service was last used, or known to be watched. All times are those of
   * `performance.now()`.
   */
  usedAt = performance.now();
  /** The lookup under way. */
  lookup: DnsLookup | undefined = undefined;
  lookupDone: Promise<void> | undefined = undefined;
  /** When the last lookup began. */
  lookedAt = 0;
  /** When the next one is due. */
  dueAt = Infinity;
  timer: NodeJS.Timeout | undefined = undefined;

  constructor(name: string, dnsName: DnsName) {
    this.name = name;
    this.dnsName = dnsName;
  }
}

const NONE: readonly ServiceInstance[] = Object.freeze([]);
/** The most services that are kept without instances and watchers. */
const MAX_VACANT = 1_000;
/** A service that nobody watches is dropped when it was not used for this many times `maxTtl`. */
const MAX_UNUSED = 3;
/**
 * The largest share of the TTL by which a refresh is delayed, so that the processes of a fleet do
 * not ask all at once.
 */
const JITTER = 0.1;
/**
 * Milliseconds until a failed lookup is first retried; twice as long before each further retry, up
 * to `maxTtl`.
 */
const FIRST_RETRY = 1_000;
/**
 * The least milliseconds from the beginning of a lookup to that of one that `refresh()` asks for.
 */
const MIN_INTERVAL = 1_000;
/**
 * The least and the most milliseconds between lookups while a name has vanished, or its list is in
 * doubt: every change is seen within 2 seconds then.
 */
const CLOSE_WAIT = { min: 1_000, max: 1_800 };
/** The most milliseconds for which a service is looked up that often without a change. */
const CLOSE_WATCH = 300_000;
/** Milliseconds for which a hint keeps the list in doubt. */
const DOUBT = 10_000;
/** Hints with at most this many milliseconds between them belong to one doubt. */
const SAME_DOUBT = 60_000;
const NAME = /^(?=.{1,254}$)[\w-]{1,63}(?:\.[\w-]{1,63})*\.?$/;

/**
 * Discovers services in DNS: at the addresses of a name (A, AAAA), as of a headless service of
 * Kubernetes, or at the addresses of the targets of SRV records (RFC 2782), as of Consul.
 *
 * An instance of an SRV record has its `priority` and its `target` in the metadata, for the option
 * `priorities` of the LoadBalancer, and the weight of the record, shared by the addresses of the
 * target; weight 0 beside others is next to nothing. A target `.` means that there are no
 * instances.
 *
 * A service is looked up when it is first used or watched. While it is watched or used, it is
 * looked up again when the first TTL of an address is over, within `minTtl` and `maxTtl` and up to
 * a tenth later at random. Node does not tell the TTL of SRV records: the TTL of their targets'
 * addresses counts. `refresh()`, which the LoadBalancer calls when it cannot connect, has the
 * service looked up at once, at most once a second, and then every 1 to 2 seconds, until the answer
 * changes or 10 seconds after the last such hint. So is a name that vanishes. Neither lasts longer
 * than 5 minutes.
 *
 * The last good answer outlives every failure of DNS. The answer that there is no such name, or
 * nothing at it, counts once it has lasted for `absenceGrace`: gRPC never believes that answer and
 * Envoy does at once, but servers under load give it in error, and addresses that were given up may
 * come to belong to others.
 *
 * @example
 * new DnsServiceDiscovery({
 *   services: {
 *     'user-service': { name: 'users.prod.svc.cluster.local', port: 8080 },
 *     'payment-service': { name: '_http._tcp.payments.service.consul', type: 'SRV' },
 *   },
 * });
 * new DnsServiceDiscovery({ services: (service) => ({ name: `${service}.mesh.internal`, port: 8080 }) });
 */
export class DnsServiceDiscovery extends Emitter<DnsServiceDiscoveryEvents> implements ServiceDiscovery {
  readonly #findDnsName: (serviceName: string) => DnsName | undefined;
  /** The DNS names of the services that are listed. */
  readonly #listed: ReadonlyMap<string, DnsName>;
  readonly #resolver: DnsResolver;
  /** The resolver, if it was made here. */
  readonly #ownResolver: Resolver | undefined;
  readonly #minTtl: number;
  readonly #maxTtl: number;
  readonly #timeout: number;
  readonly #absenceGrace: number;
  readonly #random: () => number;
  readonly #backoff: Backoff;
  readonly #services = new Map<string, Service>();
  /** The `#services` that have neither instances nor watchers, the latest looked up last. */
  readonly #vacant = new Set<Service>();
  readonly #watchers = new Watchers();
  #closed = false;
  /**
   * The error if `random` gave no number: a lookup must not fail for that, so that callers get it.
   */
  #randomError: unknown = undefined;

  /**
   * @throws TypeError | RangeError naming the option that is not what it must be;
   * InvalidInstanceError naming a service whose name none can have.
   */
  constructor(options: DnsServiceDiscoveryOptions) {
    super('dns-service-discovery');
    validateOptions('DnsServiceDiscovery', options, {
      services: either('an object of DNS names, by service, or a function', isFunction, anObject),
      resolver: hasMethods('resolve4', 'resolve6', 'resolveSrv'),
      minTtl: number(1, MAX_DELAY),
      maxTtl: number(1, MAX_DELAY),
      timeout: number(1, MAX_DELAY),
      absenceGrace: anyDuration,
      random: isFunction,
    });
    requireOption('DnsServiceDiscovery', options, 'services');
    const { services, resolver, timeout = 5_000, random = Math.random } = options;
    this.#minTtl = options.minTtl ?? Math.min(5_000, options.maxTtl ?? Infinity);
    this.#maxTtl = options.maxTtl ?? Math.max(30_000, this.#minTtl);
    if (this.#minTtl > this.#maxTtl) {
      const got = `got ${this.#minTtl} and ${this.#maxTtl}`;
      throw new RangeError(`DnsServiceDiscovery option 'minTtl' must be at most 'maxTtl'; ${got}`);
    }
    this.#listed = new Map(typeof services === 'function' ? [] : Object.entries(services));
    for (const [serviceName, at] of this.#listed) {
      checkServiceName(serviceName);
      checkDnsName(serviceName, at);
    }
    this.#findDnsName = typeof services === 'function' ? services : (name) => this.#listed.get(name);
    // The second attempt waits twice as long: both end within the timeout.
    this.#ownResolver = resolver ? undefined : new Resolver({ timeout: Math.ceil(timeout / 5), tries: 2 });
    this.#resolver = resolver ?? this.#ownResolver!;
    this.#timeout = timeout;
    this.#absenceGrace = options.absenceGrace ?? 300_000;
    this.#random = this.#checkedRandom(random);
    this.#backoff = exponentialBackoff({
      base: Math.min(FIRST_RETRY, this.#maxTtl),
      max: this.#maxTtl,
      jitter: 'equal',
      random: this.#random,
    });
  }

  /** Rejects: DNS is written elsewhere. */
  async register(): Promise<ServiceInstance> {
    throw new InvalidInstanceError('DNS takes no registrations from here: use RedisServiceDiscovery');
  }

  /** Rejects: DNS is written elsewhere. */
  async deregister(): Promise<boolean> {
    throw new InvalidInstanceError('DNS cannot be changed from here: use RedisServiceDiscovery');
  }

  /**
   * Changes the instance in this process alone. The changes hold, whatever DNS answers later, for
   * as long as DNS has the instance and the service is watched or used.
   *
   * @throws InvalidInstanceError naming the field that is not what it must be, or may not change;
   * DiscoveryUnavailableError if nothing is known of the service and the lookup fails.
   */
  async update(serviceName: string, instanceId: string, changes: InstanceChanges): Promise<boolean> {
    const service = await this.#waitForLookup(serviceName);
    if (service?.list === undefined) {
      if (service === undefined || isAbsence(service.failure)) return false;
      throw service.failure;
    }
    const before = service.list.instances;
    if (!service.list.update(instanceId, changes)) return false;
    if (service.list.instances !== before) this.#notify(service);
    return true;
  }

  /** Tells whether DNS has the instance. A heartbeat keeps nothing alive there. */
  async heartbeat(serviceName: string, instanceId: string): Promise<boolean> {
    return (await this.instances(serviceName)).some((instance) => instance.instanceId === instanceId);
  }

  /**
   * Gives the known list, or looks the service up.
   *
   * @throws DiscoveryUnavailableError if no list is known and the lookup fails, with the error of
   * DNS as its cause; for a moment after that at once, without another lookup.
   */
  async instances(serviceName: string): Promise<readonly ServiceInstance[]> {
    const service = await this.#waitForLookup(serviceName);
    if (service === undefined) return NONE;
    if (service.list === undefined) throw service.failure;
    return service.list.instances;
  }

  async healthyInstances(serviceName: string): Promise<readonly ServiceInstance[]> {
    return Object.freeze((await this.instances(serviceName)).filter(({ status }) => status !== 'unhealthy'));
  }

  /** Tells whether the service is listed, or was found and not dropped since. */
  knows(serviceName: string): boolean {
    return (
      this.#listed.has(serviceName) || (this.#services.get(serviceName)?.list?.instances.length ?? 0) > 0
    );
  }

  watch(serviceName: string, listener: InstanceListener): Unsubscribe {
    const service = this.#findOrStart(serviceName);
    if (service === undefined) return () => {};
    this.#vacant.delete(service);
    const unwatch = this.#watchers.watch(serviceName, listener);
    return () => {
      unwatch();
      this.#boundVacant(service);
    };
  }

  /**
   * Looks the service up, whatever its TTL and `minTtl`, if it is watched or was used lately: at
   * once, or a second after its last lookup began. A lookup under way serves for that.
   */
  refresh(serviceName: string): void {
    const service = this.#services.get(serviceName);
    if (service === undefined) return;
    const now = performance.now();
    if (now - service.hintedAt > SAME_DOUBT) service.doubtedSince = now;
    service.hintedAt = now;
    if (service.lookup !== undefined) return;
    const at = Math.max(now, service.lookedAt + MIN_INTERVAL);
    if (at === now) this.#refreshIfUsed(service);
    else if (at < service.dueAt) this.#refreshAfter(service, at - now);
  }

  /** Cancels every lookup under way. Callers that wait for one get a ClosedError. */
  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    for (const { timer, lookup } of this.#services.values()) {
      clearTimeout(timer);
      lookup?.cancel(closedError());
    }
    this.#services.clear();
    this.#vacant.clear();
    this.#watchers.clear();
    this.#ownResolver?.cancel();
  }

  #throwIfClosed(): void {
    if (this.#closed) throw closedError();
  }

  /** Waits for the first lookup of a service. Gives undefined if there is no such service. */
  async #waitForLookup(serviceName: string): Promise<Service | undefined> {
    const service = this.#findOrStart(serviceName);
    if (service === undefined) return undefined;
    service.usedAt = performance.now();
    if (service.list === undefined) await service.lookupDone;
    this.#throwIfClosed();
    if (this.#randomError !== undefined) throw this.#randomError;
    return service;
  }

  #checkedRandom(random: () => number): () => number {
    return () => {
      try {
        return decided(random(), "DnsServiceDiscovery option 'random'");
      } catch (error) {
        this.#randomError = error;
        return 0;
      }
    };
  }

  /**
   * Finds the state of a service, and looks it up at the first use. Gives undefined if there is no
   * such service.
   */
  #findOrStart(serviceName: string): Service | undefined {
    this.#throwIfClosed();
    const known = this.#services.get(serviceName);
    if (known !== undefined) return known;
    const dnsName = this.#checkedDnsName(serviceName);
    if (dnsName === undefined || !isName(serviceName)) return undefined;
    const service = new Service(serviceName, dnsName);
    this.#services.set(serviceName, service);
    this.#refresh(service);
    return service;
  }

  #checkedDnsName(serviceName: string): DnsName | undefined {
    try {
      const dnsName = decided(this.#findDnsName(serviceName), "DnsServiceDiscovery option 'services'");
      if (dnsName !== undefined) checkDnsName(serviceName, dnsName);
      return dnsName;
    } catch (cause) {
      throw new DiscoveryUnavailableError(`the DNS name of '${serviceName}' is not known`, { cause });
    }
  }

  #refresh(service: Service): void {
    service.lookedAt = performance.now();
    service.lookup = new DnsLookup(this.#resolver, service.name, service.dnsName, service.list?.listed);
    service.lookupDone = this.#look(service, service.lookup);
  }

  async #look(service: Service, lookup: DnsLookup): Promise<void> {
    try {
      const answer = await lookup.run(this.#timeout);
      service.lookup = undefined;
      if (!this.#closed) this.#onAnswer(service, answer);
    } catch (error) {
      service.lookup = undefined;
      if (!this.#closed) this.#onFailure(service, error as HoldfastError);
    }
  }

  #onAnswer(service: Service, { instances, ttl, flaws }: DnsAnswer): void {
    service.failures = 0;
    if (instances.length > 0) service.absentSince = undefined;
    else service.absentSince ??= performance.now();
    const changed = this.#replaceList(service, instances);
    const wait = jitter(Math.min(this.#maxTtl, Math.max(this.#minTtl, ttl)), 1, 1 + JITTER, this.#random);
    this.#refreshAfter(service, Math.min(wait, this.#closeWait(service)));
    if (changed) this.#notify(service);
    this.#boundVacant(service);
    for (const error of flaws) this.emit('failure', { serviceName: service.name, error });
  }

  /**
   * Keeps only the latest services that have neither instances nor watchers, since names may come
   * from requests.
   */
  #boundVacant(service: Service): void {
    const { name, list } = service;
    this.#vacant.delete(service);
    if (this.#services.get(name) !== service) return;
    if ((list?.instances ?? NONE).length > 0 || this.#watchers.has(name)) return;
    this.#vacant.add(service);
    const [earliest] = this.#vacant;
    if (this.#vacant.size > MAX_VACANT) this.#drop(earliest!);
  }

  #drop(service: Service): void {
    clearTimeout(service.timer);
    this.#vacant.delete(service);
    this.#services.delete(service.name);
  }

  #onFailure(service: Service, error: HoldfastError): void {
    const now = performance.now();
    const absent = isAbsence(error);
    service.failure = error;
    service.failures++;
    if (absent && service.list !== undefined) service.absentSince ??= now;
    const closely = absent ? this.#closeWait(service) : Infinity;
    this.#refreshAfter(service, closely < Infinity ? closely : this.#backoff(service.failures, 0));
    const gone = absent && now - (service.absentSince ?? Infinity) >= this.#absenceGrace;
    if (gone && this.#replaceList(service, NONE)) this.#notify(service);
    this.#boundVacant(service);
    this.emit('failure', { serviceName: service.name, error });
  }

  /** Gives the wait between close lookups; Infinity if the service is not in doubt. */
  #closeWait({ absentSince = -Infinity, hintedAt, doubtedSince }: Service): number {
    const now = performance.now();
    const absent = now - absentSince < CLOSE_WATCH;
    const doubted = now - hintedAt < DOUBT && now - doubtedSince < CLOSE_WATCH;
    if (!absent && !doubted) return Infinity;
    const { min, max } = CLOSE_WAIT;
    return Math.min(this.#maxTtl, min + this.#random() * (max - min));
  }

  /** Takes over a list. Gives true if it is another than before, which ends a doubt. */
  #replaceList(service: Service, listed: readonly ServiceInstance[]): boolean {
    const before = service.list?.instances;
    service.list ??= new OverlaidList();
    service.list.replace(listed);
    const changed = service.list.instances !== before;
    if (changed) service.hintedAt = -Infinity;
    return changed;
  }

  #notify({ name, list }: Service): void {
    this.#watchers.notify(name, list!.instances);
  }

  #refreshAfter(service: Service, wait: number): void {
    clearTimeout(service.timer);
    if (this.#services.get(service.name) !== service) return;
    service.dueAt = performance.now() + wait;
    service.timer = setTimeout(
      () => this.#refreshIfUsed(service),
      Math.ceil(Math.min(wait, MAX_DELAY)),
    ).unref();
  }

  /**
   * Looks the service up again if it is used. Drops a service that failed and is not watched: the
   * next use looks it up.
   */
  #refreshIfUsed(service: Service): void {
    clearTimeout(service.timer);
    const now = performance.now();
    const watched = this.#watchers.has(service.name);
    if (watched) service.usedAt = now;
    const unknown = service.list === undefined && !watched;
    if (unknown || now - service.usedAt > MAX_UNUSED * this.#maxTtl) this.#drop(service);
    else this.#refresh(service);
  }
}

function closedError(): ClosedError {
  return new ClosedError('the DnsServiceDiscovery');
}

const checkName: Check = either('a name in DNS, such as users.internal', (value) => {
  if (typeof value !== 'string' || !NAME.test(value) || isIP(value) !== 0) throw new TypeError();
});

function checkDnsName(serviceName: string, at: DnsName): void {
  const owner = `'${serviceName}' of DnsServiceDiscovery`;
  validateOptions(owner, at, {
    name: checkName,
    type: oneOf('A', 'AAAA', 'SRV'),
    port: integer(1, 65_535),
    protocol: oneOf('http', 'https'),
  });
  requireOption(owner, at, 'name');
  if (at.type === 'SRV' && at.port !== undefined) {
    throw new TypeError(`${owner} has no option 'port' with SRV records, which say the port themselves`);
  }
}
