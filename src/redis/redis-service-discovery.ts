import { hash } from 'node:crypto';
import type { Leases } from '../discovery/leases.ts';
import type { InstanceListener, ServiceDiscovery, Unsubscribe } from '../discovery/service-discovery.ts';
import {
  checkChanges,
  checkServiceName,
  checkStatus,
  type InstanceChanges,
  type InstanceRegistration,
  isName,
  type ServiceInstance,
  toRegisteredInstance,
  withChanges,
} from '../discovery/service-instance.ts';
import { Watchers } from '../discovery/watchers.ts';
import { ClosedError, DiscoveryUnavailableError, InvalidInstanceError, RedisError } from '../errors.ts';
import { Emitter } from '../internal/emitter.ts';
import { integer, MAX_DELAY, matching, requireOption, text, validateOptions } from '../internal/validate.ts';
import { FollowedService, type FollowerListener } from './followed-service.ts';
import { Heartbeats } from './heartbeats.ts';
import { checkRedisSource, RedisConnection, type RedisSource } from './redis-connection.ts';
import { RedisLeases } from './redis-leases.ts';
import { RedisSubscriber } from './redis-subscriber.ts';
import { instanceOf, toJson } from './registry-format.ts';
import { type Registration, ServiceRegistry } from './service-registry.ts';
import { SnapshotFile } from './snapshot-file.ts';

export interface RedisServiceDiscoveryOptions {
  /**
   * A URL (`rediss:` for TLS), options of ioredis, or a client of ioredis: a `Redis`, by Sentinel too, or a `Cluster`.
   * A client that is given stays open.
   */
  redis: RedisSource;
  /** What the names of all keys and channels begin with. Default `holdfast`. */
  keyPrefix?: string;
  /** Milliseconds that an instance registered here stays without a heartbeat. Default 90,000. */
  ttl?: number;
  /**
   * Milliseconds for which instances are kept that vanish from Redis together without having left: it may have lost
   * them, or they cannot reach it. No more than half of a list goes so in each such period, and the last instances
   * stay for ten. 0 for not at all. Default: the `ttl`.
   */
  grace?: number;
  /** Milliseconds without news after which it asks Redis whether any were missed. Default 30,000. */
  refreshInterval?: number;
  /** Milliseconds that an answer of Redis may take, the connection to it included. Default 5,000. */
  timeout?: number;
  /** A file to keep the last known instances in, so that a process can start while Redis is away. Default: none. */
  snapshotFile?: string;
}

export interface RedisServiceDiscoveryEvents {
  /**
   * Redis cannot be reached, takes no writes, or is silent about instances that are kept all the same: the error says
   * which. What is known of the service stays, but may be out of date from now on.
   */
  stale: [event: { serviceName: string; error: unknown }];
  /** What is known of the service is up to date again. */
  fresh: [event: { serviceName: string }];
  /** Redis had forgotten an instance of this process, as after a restart; it is registered again. */
  're-registered': [event: { instance: ServiceInstance }];
  /** Something in Redis is not a registration that could have been made: it is left out. */
  'invalid-entry': [event: { serviceName: string; instanceId: string; error: unknown }];
  /**
   * Keys of a service held what no registry has written, such as a value of another type: they were begun anew, since no
   * instance could register there. Instances that were lost by it are registered again with their next heartbeats.
   */
  healed: [event: { serviceName: string; keys: readonly string[] }];
  /** The snapshot file could not be read or written. */
  'snapshot-error': [event: { error: unknown }];
}

/** Services that are of no use now and are kept at most. */
const MAX_VACANT = 100;
/** Invalid entries that the process is warned of at most: one that is warned of is remembered. */
const MAX_WARNINGS = 100_000;

/**
 * Discovery for services on many hosts, over one Redis, a Redis with replicas behind Sentinel, or a Redis Cluster.
 *
 * Each process holds in memory what it asked for, told of each change by Redis, so that nothing waits for Redis after
 * the first answer. While Redis is away it goes on with what it knows; instances of this process are registered again
 * when it is back, whatever it remembers. Whether an instance is alive is judged by Redis's clock alone.
 *
 * @example
 * const discovery = new RedisServiceDiscovery({ redis: 'redis://127.0.0.1:6379' });
 * const client = new ServiceClient({ discovery });
 */
export class RedisServiceDiscovery extends Emitter<RedisServiceDiscoveryEvents> implements ServiceDiscovery {
  /** For a HealthChecker, so that of several only one checks each service. */
  readonly leases: Leases;
  readonly #connection: RedisConnection;
  readonly #subscriber: RedisSubscriber;
  readonly #registry: ServiceRegistry;
  readonly #heartbeats: Heartbeats;
  readonly #snapshotFile: SnapshotFile | undefined;
  readonly #following: { refreshInterval: number; grace: number };
  readonly #followed = new Map<string, FollowedService>();
  readonly #byChannel = new Map<string, FollowedService>();
  readonly #watchers = new Watchers();
  /** Services that nobody watches and of which no instance is known, those asked for last the last. */
  readonly #vacant = new Set<FollowedService>();
  /** Entries that the process was warned of: once is enough. */
  readonly #warnedOf = new Set<string>();
  readonly #checking: NodeJS.Timeout;
  #closing: Promise<void> | undefined = undefined;

  constructor(options: RedisServiceDiscoveryOptions) {
    super('service-discovery');
    validateOptions('RedisServiceDiscovery', options, {
      redis: checkRedisSource,
      keyPrefix: matching(/^[\w.:-]{1,64}$/, 'letters, digits and . _ : - (at most 64)'),
      ttl: integer(1, MAX_DELAY),
      grace: integer(0, MAX_DELAY),
      refreshInterval: integer(1, MAX_DELAY),
      timeout: integer(1, MAX_DELAY),
      snapshotFile: text,
    });
    requireOption('RedisServiceDiscovery', options, 'redis');
    const { keyPrefix = 'holdfast', ttl = 90_000, timeout = 5_000, snapshotFile } = options;
    this.#following = { refreshInterval: options.refreshInterval ?? 30_000, grace: options.grace ?? ttl };
    this.#connection = new RedisConnection(options.redis, timeout);
    this.#registry = new ServiceRegistry(this.#connection, keyPrefix, (serviceName, keys) => {
      this.emit('healed', { serviceName, keys });
    });
    this.#heartbeats = new Heartbeats(this.#registry, ttl, (registration) => this.#forgotten(registration));
    this.#subscriber = new RedisSubscriber(this.#connection, {
      message: (channel, news) => this.#byChannel.get(channel)?.hear(news),
      up: () => this.#up(),
      down: (error) => this.#down(error),
    });
    if (snapshotFile !== undefined) {
      this.#snapshotFile = new SnapshotFile(snapshotFile, (error) => this.emit('snapshot-error', { error }));
    }
    this.leases = new RedisLeases(this.#connection, keyPrefix);
    // A connection on which nothing comes may be a quiet one, or one of which the other end is gone.
    const check = () => {
      if (this.#followed.size > 0) void this.#subscriber.check();
    };
    this.#checking = setInterval(check, this.#following.refreshInterval).unref();
  }

  /**
   * Registering again what this process has registered is one change of it.
   *
   * @throws InvalidInstanceError; RedisError if Redis is away; InstanceReplacedError if another process has registered
   * under its id since this one did.
   */
  async register(registration: InstanceRegistration): Promise<ServiceInstance> {
    this.#throwIfClosed();
    const instance = toRegisteredInstance(registration);
    checkServiceName(instance.serviceName);
    // From now on it is told when Redis is back from being away.
    this.#subscriber.connected().catch(() => {});
    await this.#heartbeats.register(instance.serviceName, instance.instanceId, toJson(instance));
    return instance;
  }

  /**
   * Of an instance that this process has registered, unless another one took its id since; of any other, whoever
   * registered it.
   *
   * @throws RedisError if Redis is away.
   */
  async deregister(serviceName: string, instanceId: string): Promise<boolean> {
    this.#throwIfClosed();
    return isName(serviceName) && this.#heartbeats.deregister(serviceName, instanceId);
  }

  /**
   * Changes the weight and the metadata of instances that this process has registered, and the status of any. While
   * Redis is away a status is known to this process only, until it is back.
   *
   * @throws InvalidInstanceError, RedisError, InstanceReplacedError
   */
  async update(serviceName: string, instanceId: string, changes: InstanceChanges): Promise<boolean> {
    this.#throwIfClosed();
    checkChanges(changes);
    if (changes.status !== undefined) checkStatus(changes.status);
    const json = this.#heartbeats.jsonOf(serviceName, instanceId);
    if (json !== undefined) {
      const changed = withChanges(instanceOf(serviceName, instanceId, json), changes);
      await this.#heartbeats.register(serviceName, instanceId, toJson(changed));
    } else if (changes.weight !== undefined || changes.metadata !== undefined) {
      throw new InvalidInstanceError(
        `the weight and the metadata of '${instanceId}' can be changed by the process that registered it, not by this one`,
      );
    }
    if (changes.status === undefined) return json !== undefined;
    return this.#setStatus(serviceName, instanceId, changes.status);
  }

  /** @throws RedisError if Redis is away; InstanceReplacedError if another process has registered under its id. */
  async heartbeat(serviceName: string, instanceId: string): Promise<boolean> {
    this.#throwIfClosed();
    return this.#heartbeats.heartbeat(serviceName, instanceId);
  }

  /** @throws DiscoveryUnavailableError if Redis is away and nothing is known of the service from earlier. */
  async instances(serviceName: string): Promise<readonly ServiceInstance[]> {
    this.#throwIfClosed();
    if (!isName(serviceName)) return [];
    const service = this.#follow(serviceName);
    try {
      if (!service.known) await this.#begin(service);
      return service.instances;
    } finally {
      this.#noteVacancy(service);
    }
  }

  async healthyInstances(serviceName: string): Promise<readonly ServiceInstance[]> {
    const instances = await this.instances(serviceName);
    return Object.freeze(instances.filter(({ status }) => status !== 'unhealthy'));
  }

  knows(serviceName: string): boolean {
    return this.#followed.get(serviceName)?.inhabited ?? false;
  }

  watch(serviceName: string, listener: InstanceListener): Unsubscribe {
    this.#throwIfClosed();
    const unwatch = this.#watchers.watch(serviceName, listener);
    if (!isName(serviceName)) return unwatch;
    const service = this.#follow(serviceName);
    this.#vacant.delete(service);
    this.#hear(service);
    return () => {
      unwatch();
      this.#noteVacancy(service);
    };
  }

  /**
   * Whether what is known of the service may be out of date: Redis cannot be reached, takes no writes, or is silent about
   * instances that are kept all the same.
   */
  isStale(serviceName: string): boolean {
    return this.#followed.get(serviceName)?.stale ?? false;
  }

  /**
   * The names of all services that have, or lately had, an instance, in order. Asks Redis.
   *
   * @throws RedisError if Redis is away.
   */
  async services(): Promise<string[]> {
    this.#throwIfClosed();
    return this.#registry.services();
  }

  /** Ends the watching, and waits for what is under way. Instances stay registered until their time is over. */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    clearInterval(this.#checking);
    for (const service of this.#followed.values()) service.stop();
    this.#watchers.clear();
    this.#subscriber.close();
    await this.#connection.close();
    await this.#snapshotFile?.flush();
  }

  #throwIfClosed(): void {
    if (this.#closing !== undefined) throw new ClosedError('the RedisServiceDiscovery');
  }

  #follow(serviceName: string): FollowedService {
    let service = this.#followed.get(serviceName);
    if (service === undefined) {
      const hearing = () => this.#subscriber.up;
      service = new FollowedService(
        serviceName,
        this.#registry,
        hearing,
        this.#following,
        this.#followerListener,
      );
      this.#followed.set(serviceName, service);
      void service.read().catch(() => {});
    }
    return service;
  }

  /**
   * Has the service hear what is published of it: once somebody watches it, or it is found to have instances, since the
   * names that are asked for may come from requests. Should anything be published before, the look after the subscription
   * finds it.
   */
  #hear(service: FollowedService): void {
    const channel = this.#registry.channelOf(service.serviceName);
    if (this.#byChannel.has(channel)) return;
    this.#byChannel.set(channel, service);
    this.#subscriber.subscribe(channel).then(
      () => service.hearsAgain(),
      () => {},
    );
  }

  /** To be called after each use of a service: of those that are of no use only the latest are kept. */
  #noteVacancy(service: FollowedService): void {
    const { serviceName } = service;
    if (this.#followed.get(serviceName) !== service || this.#closing !== undefined) return;
    this.#vacant.delete(service);
    if (service.inhabited || this.#watchers.has(serviceName)) {
      this.#hear(service);
      return;
    }
    this.#vacant.add(service);
    if (service.known) this.#hear(service);
    const [earliest] = this.#vacant;
    if (this.#vacant.size > MAX_VACANT) this.#letGo(earliest!.serviceName);
  }

  /** Waits for the first reading; failing that, begins with what an earlier process knew. */
  async #begin(service: FollowedService): Promise<void> {
    try {
      await service.read();
    } catch (error) {
      const recalled = await this.#snapshotFile?.recall(service.serviceName);
      if (recalled !== undefined) service.recall(recalled);
      if (service.known) return;
      throw new DiscoveryUnavailableError(
        `'${service.serviceName}' cannot be looked up, and nothing is known of it from earlier: ${(error as Error).message}`,
        { cause: error },
      );
    }
  }

  async #setStatus(
    serviceName: string,
    instanceId: string,
    status: ServiceInstance['status'],
  ): Promise<boolean> {
    try {
      return await this.#registry.setStatus(serviceName, instanceId, status);
    } catch (error) {
      const service = this.#followed.get(serviceName);
      if (!(error instanceof RedisError) || service === undefined) throw error;
      return service.setStatus(instanceId, status);
    }
  }

  #up(): void {
    for (const service of this.#followed.values()) service.hearsAgain();
    // What fails here is told by the next heartbeat of each.
    this.#heartbeats.beat().catch(() => {});
  }

  #down(error: unknown): void {
    for (const service of this.#followed.values()) service.hearsNothing(error);
  }

  #forgotten({ serviceName, instanceId, json }: Registration): void {
    this.emit('re-registered', { instance: instanceOf(serviceName, instanceId, json) });
  }

  readonly #followerListener: FollowerListener = {
    known: (serviceName, instances) => {
      this.#snapshotFile?.remember(serviceName, instances);
      const service = this.#followed.get(serviceName);
      if (service !== undefined) this.#noteVacancy(service);
    },
    changed: (serviceName, instances) => this.#watchers.tell(serviceName, instances),
    stale: (serviceName, error) => this.emit('stale', { serviceName, error }),
    fresh: (serviceName) => this.emit('fresh', { serviceName }),
    invalid: (serviceName, { instanceId }, error) => this.#invalid(serviceName, instanceId, error),
    idle: (serviceName) => this.#letGo(serviceName),
  };

  #invalid(serviceName: string, instanceId: string, error: unknown): void {
    this.emit('invalid-entry', { serviceName, instanceId, error });
    const key = hash('sha256', `${serviceName} ${instanceId}`, 'base64url');
    if (this.#warnedOf.has(key) || this.#warnedOf.size >= MAX_WARNINGS) return;
    this.#warnedOf.add(key);
    const what = `${JSON.stringify(instanceId).slice(0, 200)} of '${serviceName}' in Redis at ${this.#connection.address}`;
    process.emitWarning(`${what} is not a registration, and is left out: ${error}`, {
      type: 'HoldfastDiscoveryWarning',
    });
  }

  /** Names may come from requests: those that nobody watches or asks for are forgotten. */
  #letGo(serviceName: string): void {
    const service = this.#followed.get(serviceName);
    if (service === undefined || this.#watchers.has(serviceName)) return;
    const channel = this.#registry.channelOf(serviceName);
    service.stop();
    this.#followed.delete(serviceName);
    this.#vacant.delete(service);
    if (this.#byChannel.delete(channel)) this.#subscriber.unsubscribe(channel).catch(() => {});
  }
}
