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
import {
  anObject,
  type Check,
  either,
  func,
  having,
  integer,
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
   * Where each service is in DNS, by its name; or a function that says it of any, at once, and undefined of one that
   * there is not. It may be asked for a name that came with a request.
   */
  services: Readonly<Record<string, DnsName>> | ((serviceName: string) => DnsName | undefined);
  /**
   * Whom to ask, such as a `Resolver` of `node:dns/promises` with servers of its own; it stays its owner's.
   * Default: the servers that the host is set up with, each at most twice in a lookup.
   */
  resolver?: DnsResolver;
  /**
   * The least milliseconds from an answer to the next lookup, but for one that `refresh()` asks for. Default
   * 5,000, or `maxTtl` if that is less.
   */
  minTtl?: number;
  /** The most milliseconds from one lookup to the next. Default 30,000, or `minTtl` if that is more. */
  maxTtl?: number;
  /** Milliseconds for a lookup, with all that it has to ask. Default 5,000. */
  timeout?: number;
  /**
   * Milliseconds for which the last instances are kept once DNS says that there are none, or no such name.
   * Infinity for ever, 0 not to keep them. Default 300,000.
   */
  absenceGrace?: number;
  /** A source of numbers from 0 to 1. Default Math.random. */
  random?: () => number;
}

export interface DnsServiceDiscoveryEvents {
  /**
   * A lookup failed, or a part of it: a target that has no address, a record that cannot be used. What was
   * known before goes on, and so does what is well.
   */
  failure: [event: { serviceName: string; error: HoldfastError }];
}

/** What is known of a service that someone watches, or has asked for lately. */
class Service {
  readonly name: string;
  readonly at: DnsName;
  /** The last good answer. */
  list: OverlaidList | undefined = undefined;
  /** How the lookup failed last: told to those who ask while no answer is known. */
  failure: unknown = undefined;
  failures = 0;
  /** When `refresh()` was called last, and since when it has been called without a change of the list. */
  hintedAt = -Infinity;
  doubtedSince = -Infinity;
  /** Since when DNS says that there is nothing. */
  absentSince: number | undefined = undefined;
  /** When it was last asked for, or known to be watched. Times are those of `performance.now()`. */
  usedAt = performance.now();
  /** The lookup under way. */
  lookup: DnsLookup | undefined = undefined;
  looking: Promise<void> | undefined = undefined;
  /** When the last lookup began. */
  lookedAt = 0;
  /** When the next one is due. */
  dueAt = Infinity;
  timer: NodeJS.Timeout | undefined = undefined;

  constructor(name: string, at: DnsName) {
    this.name = name;
    this.at = at;
  }
}

const NONE: readonly ServiceInstance[] = Object.freeze([]);
/** Services without instances that nobody watches and that are kept at most. */
const MAX_VACANT = 1_000;
/** A service that nobody watches is let go when nobody has asked for it for this many times `maxTtl`. */
const MAX_UNUSED = 3;
/** How much later than DNS says a refresh comes at most, so that a fleet does not ask all at once. */
const JITTER = 0.1;
/** Milliseconds until a failed lookup is retried at first; then twice as long each time, to `maxTtl`. */
const FIRST_RETRY = 1_000;
/** The least milliseconds from the beginning of a lookup to that of one that `refresh()` asks for. */
const MIN_INTERVAL = 1_000;
/**
 * The least and the most milliseconds between lookups while a name has vanished, or what is known of it is in
 * doubt: whatever changes then is seen within 2 seconds.
 */
const CLOSE_WAIT = { min: 1_000, max: 1_800 };
/** Milliseconds for which a service is looked up that often: no longer, if nothing changes. */
const CLOSE_WATCH = 300_000;
/** Milliseconds for which a hint keeps what is known in doubt. */
const DOUBT = 10_000;
/** Hints with no more milliseconds between them are of one doubt. */
const SAME_DOUBT = 60_000;
const NAME = /^(?=.{1,254}$)[\w-]{1,63}(?:\.[\w-]{1,63})*\.?$/;

/**
 * Discovery from DNS: the addresses of a name (A, AAAA), as of a headless service of Kubernetes, or the
 * targets of SRV records (RFC 2782), as those of Consul, each at its addresses.
 *
 * An instance of an SRV record has its `priority` and its `target` in the metadata, for the option
 * `priorities` of the LoadBalancer, and its weight, shared by the addresses of the target; weight 0 beside
 * others is next to nothing. A target `.` says that there are no instances.
 *
 * A service is looked up when it is first asked for or watched. While it is watched or asked for, it is
 * looked up again when the first TTL of an address is over, within `minTtl` and `maxTtl` and up to a tenth
 * later at random. Node does not tell the TTL of SRV records: that of their targets' addresses counts.
 * `refresh()`, which the LoadBalancer calls when it cannot connect, has it looked up at once, at most once a
 * second, and closely watched: every 1 to 2 seconds, until the answer changes or 10 seconds after the last such
 * hint. A name that vanishes is watched closely too. Neither lasts longer than 5 minutes.
 *
 * The last good answer outlives every failure of DNS. What DNS says for `absenceGrace` counts though it be
 * that there is no such name, or nothing at it: gRPC never believes that and Envoy does at once, but servers
 * under load say so in error, and addresses that were given up may come to belong to others.
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
  readonly #nameOf: (serviceName: string) => DnsName | undefined;
  /** The names that are listed, where they are. */
  readonly #listed: ReadonlyMap<string, DnsName>;
  readonly #resolver: DnsResolver;
  /** The resolver, if it was made here. */
  readonly #own: Resolver | undefined;
  readonly #minTtl: number;
  readonly #maxTtl: number;
  readonly #timeout: number;
  readonly #absenceGrace: number;
  readonly #random: () => number;
  readonly #backoff: Backoff;
  readonly #services = new Map<string, Service>();
  /** Those of `#services` that have no instances and that nobody watches; those looked up last the last. */
  readonly #vacant = new Set<Service>();
  readonly #watchers = new Watchers();
  #closed = false;
  /** Why `random` gave no number: a lookup must not fail of it, so that it is thrown to whoever asks. */
  #fault: unknown = undefined;

  /**
   * @throws TypeError | RangeError naming the option that is not what it must be; InvalidInstanceError naming a service
   * whose name none can have.
   */
  constructor(options: DnsServiceDiscoveryOptions) {
    super('dns-service-discovery');
    validateOptions('DnsServiceDiscovery', options, {
      services: either('an object of DNS names, by service, or a function', func, anObject),
      resolver: having('resolve4', 'resolve6', 'resolveSrv'),
      minTtl: number(1, MAX_DELAY),
      maxTtl: number(1, MAX_DELAY),
      timeout: number(1, MAX_DELAY),
      absenceGrace: number(0, Infinity),
      random: func,
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
      checkName(serviceName, at);
    }
    this.#nameOf = typeof services === 'function' ? services : (name) => this.#listed.get(name);
    // A second try waits twice as long: both are over in time.
    this.#own = resolver ? undefined : new Resolver({ timeout: Math.ceil(timeout / 5), tries: 2 });
    this.#resolver = resolver ?? this.#own!;
    this.#timeout = timeout;
    this.#absenceGrace = options.absenceGrace ?? 300_000;
    this.#random = this.#checkedRandom(random);
    this.#backoff = exponentialBackoff({
      base: FIRST_RETRY,
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
   * Changes the instance in this process alone. The changes stand, whatever DNS says later, for as long as it
   * has the instance and somebody watches the service or asks for it.
   *
   * @throws InvalidInstanceError naming the field that is not what it must be, or may not change;
   * DiscoveryUnavailableError if nothing is known of the service and the lookup fails.
   */
  async update(serviceName: string, instanceId: string, changes: InstanceChanges): Promise<boolean> {
    const service = await this.#lookedUp(serviceName);
    if (service?.list === undefined) {
      if (service === undefined || isAbsence(service.failure)) return false;
      throw service.failure;
    }
    const before = service.list.instances;
    if (!service.list.update(instanceId, changes)) return false;
    if (service.list.instances !== before) this.#tell(service);
    return true;
  }

  /** Whether DNS has the instance; nothing is kept alive by it. */
  async heartbeat(serviceName: string, instanceId: string): Promise<boolean> {
    return (await this.instances(serviceName)).some((instance) => instance.instanceId === instanceId);
  }

  /**
   * What is known already, or else what DNS answers.
   *
   * @throws DiscoveryUnavailableError if nothing is known and the lookup fails, with what DNS said as its
   * cause; for a moment after that at once, without asking again.
   */
  async instances(serviceName: string): Promise<readonly ServiceInstance[]> {
    const service = await this.#lookedUp(serviceName);
    if (service === undefined) return NONE;
    if (service.list === undefined) throw service.failure;
    return service.list.instances;
  }

  async healthyInstances(serviceName: string): Promise<readonly ServiceInstance[]> {
    return Object.freeze((await this.instances(serviceName)).filter(({ status }) => status !== 'unhealthy'));
  }

  /** Whether it is listed, or has been found and not let go. */
  knows(serviceName: string): boolean {
    return (
      this.#listed.has(serviceName) || (this.#services.get(serviceName)?.list?.instances.length ?? 0) > 0
    );
  }

  watch(serviceName: string, listener: InstanceListener): Unsubscribe {
    const service = this.#service(serviceName);
    if (service === undefined) return () => {};
    this.#vacant.delete(service);
    const unwatch = this.#watchers.watch(serviceName, listener);
    return () => {
      unwatch();
      this.#boundVacant(service);
    };
  }

  /**
   * Looks the service up, whatever its TTL and `minTtl`, if it is watched or was asked for lately: at once, or
   * a second after its last lookup began. A lookup under way serves for that.
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

  /** Gives up every lookup under way. Whoever waits for one gets a ClosedError. */
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
    this.#own?.cancel();
  }

  #throwIfClosed(): void {
    if (this.#closed) throw closedError();
  }

  /** The service once its first lookup is over, if there is such a service. */
  async #lookedUp(serviceName: string): Promise<Service | undefined> {
    const service = this.#service(serviceName);
    if (service === undefined) return undefined;
    service.usedAt = performance.now();
    if (service.list === undefined) await service.looking;
    this.#throwIfClosed();
    if (this.#fault !== undefined) throw this.#fault;
    return service;
  }

  #checkedRandom(random: () => number): () => number {
    return () => {
      try {
        return decided(random(), "DnsServiceDiscovery option 'random'");
      } catch (error) {
        this.#fault = error;
        return 0;
      }
    };
  }

  /** Undefined if there is no such service. */
  #service(serviceName: string): Service | undefined {
    this.#throwIfClosed();
    const known = this.#services.get(serviceName);
    if (known !== undefined) return known;
    const at = this.#at(serviceName);
    if (at === undefined || !isName(serviceName)) return undefined;
    const service = new Service(serviceName, at);
    this.#services.set(serviceName, service);
    this.#refresh(service);
    return service;
  }

  #at(serviceName: string): DnsName | undefined {
    try {
      const at = decided(this.#nameOf(serviceName), "DnsServiceDiscovery option 'services'");
      if (at !== undefined) checkName(serviceName, at);
      return at;
    } catch (cause) {
      throw new DiscoveryUnavailableError(`where '${serviceName}' is in DNS is not known`, { cause });
    }
  }

  #refresh(service: Service): void {
    service.lookedAt = performance.now();
    service.lookup = new DnsLookup(this.#resolver, service.name, service.at, service.list?.listed);
    service.looking = this.#look(service, service.lookup);
  }

  async #look(service: Service, lookup: DnsLookup): Promise<void> {
    try {
      const answer = await lookup.run(this.#timeout);
      service.lookup = undefined;
      if (!this.#closed) this.#answered(service, answer);
    } catch (error) {
      service.lookup = undefined;
      if (!this.#closed) this.#failed(service, error as HoldfastError);
    }
  }

  #answered(service: Service, { instances, ttl, flaws }: DnsAnswer): void {
    service.failures = 0;
    if (instances.length > 0) service.absentSince = undefined;
    else service.absentSince ??= performance.now();
    const changed = this.#take(service, instances);
    const wait = Math.min(this.#maxTtl, Math.max(this.#minTtl, ttl)) * (1 + JITTER * this.#random());
    this.#refreshAfter(service, Math.min(wait, this.#closeWait(service)));
    if (changed) this.#tell(service);
    this.#boundVacant(service);
    for (const error of flaws) this.emit('failure', { serviceName: service.name, error });
  }

  /** Names may come from requests: of the services that have no instances and are not watched only the latest are kept. */
  #boundVacant(service: Service): void {
    const { name, list } = service;
    this.#vacant.delete(service);
    if (this.#services.get(name) !== service) return;
    if ((list?.instances ?? NONE).length > 0 || this.#watchers.has(name)) return;
    this.#vacant.add(service);
    const [earliest] = this.#vacant;
    if (this.#vacant.size > MAX_VACANT) this.#forget(earliest!);
  }

  #forget(service: Service): void {
    clearTimeout(service.timer);
    this.#vacant.delete(service);
    this.#services.delete(service.name);
  }

  #failed(service: Service, error: HoldfastError): void {
    const now = performance.now();
    const absent = isAbsence(error);
    service.failure = error;
    service.failures++;
    if (absent && service.list !== undefined) service.absentSince ??= now;
    const closely = absent ? this.#closeWait(service) : Infinity;
    this.#refreshAfter(service, closely < Infinity ? closely : this.#backoff(service.failures, 0));
    const gone = absent && now - (service.absentSince ?? Infinity) >= this.#absenceGrace;
    if (gone && this.#take(service, NONE)) this.#tell(service);
    this.#boundVacant(service);
    this.emit('failure', { serviceName: service.name, error });
  }

  /** Infinity where the service is not watched closely. */
  #closeWait({ absentSince = -Infinity, hintedAt, doubtedSince }: Service): number {
    const now = performance.now();
    const absent = now - absentSince < CLOSE_WATCH;
    const doubted = now - hintedAt < DOUBT && now - doubtedSince < CLOSE_WATCH;
    if (!absent && !doubted) return Infinity;
    const { min, max } = CLOSE_WAIT;
    return Math.min(this.#maxTtl, min + this.#random() * (max - min));
  }

  /** Whether the service is another than before. That settles a doubt. */
  #take(service: Service, listed: readonly ServiceInstance[]): boolean {
    const before = service.list?.instances;
    service.list ??= new OverlaidList();
    service.list.replace(listed);
    const changed = service.list.instances !== before;
    if (changed) service.hintedAt = -Infinity;
    return changed;
  }

  #tell({ name, list }: Service): void {
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

  /** What failed and is watched by nobody is forgotten: whoever asks again will have it looked up. */
  #refreshIfUsed(service: Service): void {
    clearTimeout(service.timer);
    const now = performance.now();
    const watched = this.#watchers.has(service.name);
    if (watched) service.usedAt = now;
    const unknown = service.list === undefined && !watched;
    if (unknown || now - service.usedAt > MAX_UNUSED * this.#maxTtl) this.#forget(service);
    else this.#refresh(service);
  }
}

function closedError(): ClosedError {
  return new ClosedError('the DnsServiceDiscovery');
}

const dnsName: Check = either('a name in DNS, such as users.internal', (value) => {
  if (typeof value !== 'string' || !NAME.test(value) || isIP(value) !== 0) throw new TypeError();
});

function checkName(serviceName: string, at: DnsName): void {
  const owner = `'${serviceName}' of DnsServiceDiscovery`;
  validateOptions(owner, at, {
    name: dnsName,
    type: oneOf('A', 'AAAA', 'SRV'),
    port: integer(1, 65_535),
    protocol: oneOf('http', 'https'),
  });
  requireOption(owner, at, 'name');
  if (at.type === 'SRV' && at.port !== undefined) {
    throw new TypeError(`${owner} has no option 'port' with SRV records, which say the port themselves`);
  }
}
