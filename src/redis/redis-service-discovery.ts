import { hash } from 'node:crypto';
import { isLoopback } from '../discovery/local-host.ts';
import type { LockService } from '../discovery/lock-service.ts';
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
import { shown } from '../internal/shown.ts';
import {
  boolean,
  integer,
  MAX_DELAY,
  matching,
  nonEmptyString,
  requireOption,
  validateOptions,
} from '../internal/validate.ts';
import { Heartbeats } from './heartbeats.ts';
import { checkRedisSource, RedisConnection, type RedisSource } from './redis-connection.ts';
import { RedisLockService } from './redis-lock-service.ts';
import { RedisSubscriber } from './redis-subscriber.ts';
import { decodeInstance, encodeInstance } from './registry-format.ts';
import { type InformerListener, ServiceInformer } from './service-informer.ts';
import { type Registration, ServiceRegistry } from './service-registry.ts';
import { SnapshotFile } from './snapshot-file.ts';

export interface RedisServiceDiscoveryOptions {
  /**
   * A URL (`rediss:` for TLS), options of ioredis, or a client of ioredis: a `Redis`, by Sentinel
   * too, or a `Cluster`. A client that is given stays open.
   */
  redis: RedisSource;
  /** The beginning of the names of all keys and channels. Default `holdfast`. */
  keyPrefix?: string | undefined;
  /** Milliseconds that an instance registered here stays without a heartbeat. Default 90,000. */
  ttl?: number | undefined;
  /**
   * Milliseconds for which instances are kept that vanish from Redis together without having
   * deregistered: Redis may have lost them, or they cannot reach it. At most half of a list is
   * dropped in each such period, and the last instances stay for ten periods. 0 keeps none.
   * Default: the `ttl`.
   */
  grace?: number | undefined;
  /**
   * Milliseconds without a message after which it asks Redis whether it missed any. Default 30,000.
   */
  refreshInterval?: number | undefined;
  /** Milliseconds that a command may take, the connection to Redis included. Default 5,000. */
  timeout?: number | undefined;
  /**
   * A file to keep the last known instances in, so that a process can start while Redis is away.
   * Default: none.
   */
  snapshotFile?: string | undefined;
  /**
   * Whether instances at a loopback address, such as `127.0.0.1` or `localhost`, are meant: all callers
   * are on this host. Without it `register()` of one emits `loopback`, and there is one process
   * warning. Default false.
   */
  allowLoopback?: boolean | undefined;
}

export interface RedisServiceDiscoveryEvents {
  /**
   * Redis cannot be reached, takes no writes, or is silent about instances that are kept all the
   * same: the error tells which. The known instances of the service stay, but may be out of date
   * from now on. `known` is false where nothing was known of the service yet: calls to it fail until
   * `fresh`.
   */
  stale: [event: { serviceName: string; error: unknown; known: boolean }];
  /** The instances of the service are up to date again. */
  fresh: [event: { serviceName: string }];
  /**
   * Redis had forgotten an instance of this process, as after a restart; it is registered again.
   */
  're-registered': [event: { instance: ServiceInstance }];
  /**
   * An instance was registered at a loopback address, at which callers on other hosts reach
   * themselves. Not with `allowLoopback`.
   */
  loopback: [event: { instance: ServiceInstance }];
  /** An entry in Redis is no valid registration, and is left out. */
  'invalid-entry': [event: { serviceName: string; instanceId: string; error: unknown }];
  /**
   * Keys of a service held what no registry has written, such as a value of another type. They were
   * begun anew, since no instance could register there. Instances that this removed are registered
   * again with their next heartbeats.
   */
  healed: [event: { serviceName: string; keys: readonly string[] }];
  /** The snapshot file could not be read or written. */
  'snapshot-error': [event: { error: unknown }];
}

/**
 * The most services that are kept although nobody watches them and no instance of them is known.
 */
const MAX_VACANT = 100;
/** The most invalid entries that a process warning names: each of them is remembered. */
const MAX_WARNINGS = 100_000;

/**
 * Discovery for services on many hosts, over one Redis, a Redis with replicas behind Sentinel, or a
 * Redis Cluster.
 *
 * Each process keeps the services that it uses in memory, and Redis publishes each change, so that
 * no call waits for Redis after the first reading. While Redis is away a process goes on with what
 * it knows; when Redis is back, the process registers its instances again, whatever Redis
 * remembers. Redis's clock alone decides whether an instance is alive.
 *
 * @example
 * const discovery = new RedisServiceDiscovery({ redis: 'redis://127.0.0.1:6379' });
 * const client = new ServiceClient({ discovery });
 */
export class RedisServiceDiscovery extends Emitter<RedisServiceDiscoveryEvents> implements ServiceDiscovery {
  /**
   * The locks for the option `locks` of HealthCheckers, so that only one of several checks each
   * service.
   */
  readonly locks: LockService;
  readonly instanceTtl: number;
  readonly #connection: RedisConnection;
  readonly #subscriber: RedisSubscriber;
  readonly #registry: ServiceRegistry;
  readonly #heartbeats: Heartbeats;
  readonly #snapshotFile: SnapshotFile | undefined;
  readonly #allowLoopback: boolean;
  readonly #informerOptions: { refreshInterval: number; grace: number };
  readonly #informers = new Map<string, ServiceInformer>();
  readonly #byChannel = new Map<string, ServiceInformer>();
  readonly #watchers = new Watchers();
  /** Services that nobody watches and of which no instance is known, the latest used last. */
  readonly #vacant = new Set<ServiceInformer>();
  /** Hashes of the entries that a process warning has named: one warning is enough. */
  readonly #warnedOf = new Set<string>();
  #warnedOfLoopback = false;
  readonly #checkTimer: NodeJS.Timeout;
  #closing: Promise<void> | undefined = undefined;

  constructor(options: RedisServiceDiscoveryOptions) {
    super('redis-service-discovery');
    validateOptions('RedisServiceDiscovery', options, {
      redis: checkRedisSource,
      keyPrefix: matching(/^[\w.:-]{1,64}$/, 'letters, digits and . _ : - (at most 64)'),
      ttl: integer(1, MAX_DELAY),
      grace: integer(0, MAX_DELAY),
      refreshInterval: integer(1, MAX_DELAY),
      timeout: integer(1, MAX_DELAY),
      snapshotFile: nonEmptyString,
      allowLoopback: boolean,
    });
    requireOption('RedisServiceDiscovery', options, 'redis');
    const { keyPrefix = 'holdfast', ttl = 90_000, timeout = 5_000, snapshotFile } = options;
    this.instanceTtl = ttl;
    this.#allowLoopback = options.allowLoopback ?? false;
    this.#informerOptions = {
      refreshInterval: options.refreshInterval ?? 30_000,
      grace: options.grace ?? ttl,
    };
    this.#connection = new RedisConnection(options.redis, timeout);
    this.#registry = new ServiceRegistry(this.#connection, keyPrefix, (serviceName, keys) => {
      this.emit('healed', { serviceName, keys });
    });
    this.#heartbeats = new Heartbeats(this.#registry, ttl, (registration) => this.#onForgotten(registration));
    this.#subscriber = new RedisSubscriber(this.#connection, {
      message: (channel, text) => this.#byChannel.get(channel)?.onMessage(text),
      up: () => this.#onUp(),
      down: (error) => this.#onDown(error),
    });
    if (snapshotFile !== undefined) {
      this.#snapshotFile = new SnapshotFile(snapshotFile, (error) => this.emit('snapshot-error', { error }));
    }
    this.locks = new RedisLockService(this.#connection, keyPrefix);
    // A connection without messages may be a quiet one, or one whose other end is gone.
    const check = () => {
      if (this.#informers.size > 0) void this.#subscriber.check();
    };
    this.#checkTimer = setInterval(check, this.#informerOptions.refreshInterval).unref();
  }

  /**
   * Registers an instance, which `instances()` of this discovery has from then on. To register an
   * instance of this process again changes its registration. The host is an address that callers on
   * other hosts reach: not `0.0.0.0` or `::`, which are rejected, and no loopback address, which is
   * warned of.
   *
   * @throws InvalidInstanceError; RedisError if Redis is away; InstanceReplacedError if another
   * process has registered under the id since this one did.
   */
  async register(registration: InstanceRegistration): Promise<ServiceInstance> {
    this.#throwIfClosed();
    const instance = toRegisteredInstance(registration);
    checkServiceName(instance.serviceName);
    // From now on the subscriber tells when Redis is back after it was away.
    this.#subscriber.connected().catch(() => {});
    await this.#write(instance);
    if (!this.#allowLoopback && isLoopback(instance.host)) this.#warnOfLoopback(instance);
    return instance;
  }

  /**
   * Deregisters an instance that this process has registered, unless another process took its id
   * since; or any other instance, whichever process registered it.
   *
   * @throws RedisError if Redis is away.
   */
  async deregister(serviceName: string, instanceId: string): Promise<boolean> {
    this.#throwIfClosed();
    return isName(serviceName) && this.#heartbeats.deregister(serviceName, instanceId);
  }

  /**
   * Changes the weight and the metadata of an instance that this process has registered, or the
   * status of any instance. While Redis is away the status is known to this process only, until
   * Redis is back.
   *
   * @throws InvalidInstanceError, RedisError, InstanceReplacedError
   */
  async update(serviceName: string, instanceId: string, changes: InstanceChanges): Promise<boolean> {
    this.#throwIfClosed();
    checkChanges(changes);
    if (changes.status !== undefined) checkStatus(changes.status);
    const json = this.#heartbeats.encodedRegistration(serviceName, instanceId);
    if (json !== undefined) {
      const changed = withChanges(decodeInstance(serviceName, instanceId, json), changes);
      await this.#write(changed);
    } else if (changes.weight !== undefined || changes.metadata !== undefined) {
      throw new InvalidInstanceError(
        `the weight and the metadata of ${shown(instanceId)} can be changed by the process that registered it, not by this one`,
      );
    }
    if (changes.status === undefined) return json !== undefined;
    return this.#setStatus(serviceName, instanceId, changes.status);
  }

  /**
   * @throws RedisError if Redis is away; InstanceReplacedError if another process has registered
   * under its id.
   */
  async heartbeat(serviceName: string, instanceId: string): Promise<boolean> {
    this.#throwIfClosed();
    return this.#heartbeats.heartbeat(serviceName, instanceId);
  }

  /**
   * @throws DiscoveryUnavailableError if Redis is away and the service is not known from earlier.
   */
  async instances(serviceName: string): Promise<readonly ServiceInstance[]> {
    this.#throwIfClosed();
    if (!isName(serviceName)) return [];
    const informer = this.#inform(serviceName);
    try {
      if (!informer.known) await this.#start(informer);
      return informer.instances;
    } finally {
      this.#noteUse(informer);
    }
  }

  async healthyInstances(serviceName: string): Promise<readonly ServiceInstance[]> {
    const instances = await this.instances(serviceName);
    return Object.freeze(instances.filter(({ status }) => status !== 'unhealthy'));
  }

  knows(serviceName: string): boolean {
    return this.#informers.get(serviceName)?.hasInstances ?? false;
  }

  watch(serviceName: string, listener: InstanceListener): Unsubscribe {
    this.#throwIfClosed();
    const unwatch = this.#watchers.watch(serviceName, listener);
    if (!isName(serviceName)) return unwatch;
    const informer = this.#inform(serviceName);
    this.#vacant.delete(informer);
    this.#subscribe(informer);
    return () => {
      unwatch();
      this.#noteUse(informer);
    };
  }

  /**
   * Tells whether the known instances of the service may be out of date: Redis cannot be reached,
   * takes no writes, or is silent about instances that are kept all the same.
   */
  isStale(serviceName: string): boolean {
    return this.#informers.get(serviceName)?.stale ?? false;
  }

  /**
   * Asks Redis for the names of all services that have, or lately had, an instance, in order.
   *
   * @throws RedisError if Redis is away.
   */
  async services(): Promise<string[]> {
    this.#throwIfClosed();
    return this.#registry.services();
  }

  /**
   * Stops watching, and waits for the commands under way. Instances stay registered until their
   * time to live is over.
   */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    clearInterval(this.#checkTimer);
    for (const informer of this.#informers.values()) informer.stop();
    this.#watchers.clear();
    this.#subscriber.close();
    await this.#connection.close();
    await this.#snapshotFile?.flush();
  }

  #throwIfClosed(): void {
    if (this.#closing !== undefined) throw new ClosedError('the RedisServiceDiscovery');
  }

  /** Gives the informer of a service, and creates it at the first use. */
  #inform(serviceName: string): ServiceInformer {
    let informer = this.#informers.get(serviceName);
    if (informer === undefined) {
      const isSubscribed = () => this.#subscriber.up;
      informer = new ServiceInformer(
        serviceName,
        this.#registry,
        isSubscribed,
        this.#informerOptions,
        this.#informerListener,
      );
      this.#informers.set(serviceName, informer);
      void informer.read().catch(() => {});
    }
    return informer;
  }

  /**
   * Subscribes an informer to the changes of its service, once somebody watches the service or it
   * is found to have instances, since names may come from requests. The check after the
   * subscription finds what was published before.
   */
  #subscribe(informer: ServiceInformer): void {
    const channel = this.#registry.channelOf(informer.serviceName);
    if (this.#byChannel.has(channel)) return;
    this.#byChannel.set(channel, informer);
    this.#subscriber.subscribe(channel).then(
      () => informer.onSubscribed(),
      () => {},
    );
  }

  /**
   * To be called after each use of a service. Keeps only the latest services that have neither
   * instances nor watchers.
   */
  #noteUse(informer: ServiceInformer): void {
    const { serviceName } = informer;
    if (this.#informers.get(serviceName) !== informer || this.#closing !== undefined) return;
    this.#vacant.delete(informer);
    if (informer.hasInstances || this.#watchers.has(serviceName)) {
      this.#subscribe(informer);
      return;
    }
    this.#vacant.add(informer);
    if (informer.known) this.#subscribe(informer);
    const [earliest] = this.#vacant;
    if (this.#vacant.size > MAX_VACANT) this.#drop(earliest!.serviceName);
  }

  /**
   * Waits for the first reading. If that fails, begins with the instances that an earlier process
   * knew.
   */
  async #start(informer: ServiceInformer): Promise<void> {
    try {
      await informer.read();
    } catch (error) {
      const restored = await this.#snapshotFile?.restore(informer.serviceName);
      if (restored !== undefined) informer.restore(restored);
      if (informer.known) return;
      throw new DiscoveryUnavailableError(
        `${shown(informer.serviceName)} cannot be looked up, and nothing is known of it from earlier: ${(error as Error).message}`,
        { cause: error },
      );
    }
  }

  /** Registers an instance, and has this process see it, as far as it knows the service. */
  async #write(instance: ServiceInstance): Promise<void> {
    const { serviceName, instanceId } = instance;
    await this.#heartbeats.register(serviceName, instanceId, encodeInstance(instance));
    // The instance is registered, whether or not the registry can be read.
    await this.#informers
      .get(serviceName)
      ?.takeIn(instance)
      .catch(() => {});
  }

  #warnOfLoopback(instance: ServiceInstance): void {
    this.emit('loopback', { instance });
    if (this.#warnedOfLoopback) return;
    this.#warnedOfLoopback = true;
    const { serviceName, instanceId, host } = instance;
    process.emitWarning(
      `'${instanceId}' of '${serviceName}' is registered at '${host}', where callers on other hosts reach ` +
        'themselves: register an address that they reach, or set allowLoopback if all callers are on this host',
      { type: 'HoldfastDiscoveryWarning' },
    );
  }

  async #setStatus(
    serviceName: string,
    instanceId: string,
    status: ServiceInstance['status'],
  ): Promise<boolean> {
    try {
      return await this.#registry.setStatus(serviceName, instanceId, status);
    } catch (error) {
      const informer = this.#informers.get(serviceName);
      if (!(error instanceof RedisError) || informer === undefined) throw error;
      return informer.setStatus(instanceId, status);
    }
  }

  #onUp(): void {
    for (const informer of this.#informers.values()) informer.onSubscribed();
    // The next heartbeat of each instance tells what fails here.
    this.#heartbeats.beatAll().catch(() => {});
  }

  #onDown(error: unknown): void {
    for (const informer of this.#informers.values()) informer.onDisconnected(error);
  }

  #onForgotten({ serviceName, instanceId, json }: Registration): void {
    this.emit('re-registered', { instance: decodeInstance(serviceName, instanceId, json) });
  }

  readonly #informerListener: InformerListener = {
    known: (serviceName, instances) => {
      this.#snapshotFile?.remember(serviceName, instances);
      const informer = this.#informers.get(serviceName);
      if (informer !== undefined) this.#noteUse(informer);
    },
    changed: (serviceName, instances) => this.#watchers.notify(serviceName, instances),
    stale: (serviceName, error, known) => this.emit('stale', { serviceName, error, known }),
    fresh: (serviceName) => this.emit('fresh', { serviceName }),
    invalid: (serviceName, { instanceId }, error) => this.#onInvalid(serviceName, instanceId, error),
    idle: (serviceName) => this.#drop(serviceName),
  };

  #onInvalid(serviceName: string, instanceId: string, error: unknown): void {
    this.emit('invalid-entry', { serviceName, instanceId, error });
    const key = hash('sha256', `${serviceName} ${instanceId}`, 'base64url');
    if (this.#warnedOf.has(key) || this.#warnedOf.size >= MAX_WARNINGS) return;
    this.#warnedOf.add(key);
    const entry = `${shown(instanceId)} of '${serviceName}' in Redis at ${this.#connection.address}`;
    process.emitWarning(`${entry} is not a registration, and is left out: ${error}`, {
      type: 'HoldfastDiscoveryWarning',
    });
  }

  /** Drops a service that nobody watches, since names may come from requests. */
  #drop(serviceName: string): void {
    const informer = this.#informers.get(serviceName);
    if (informer === undefined || this.#watchers.has(serviceName)) return;
    const channel = this.#registry.channelOf(serviceName);
    informer.stop();
    this.#informers.delete(serviceName);
    this.#vacant.delete(informer);
    if (this.#byChannel.delete(channel)) this.#subscriber.unsubscribe(channel).catch(() => {});
  }
}
