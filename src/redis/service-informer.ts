import { type ServiceInstance, sameInstance } from '../discovery/service-instance.ts';
import { RedisError } from '../errors.ts';
import { jitter } from '../internal/jitter.ts';
import { InstanceCache } from './instance-cache.ts';
import { type Change, parseChange, type RegistryEntry, type RegistryState } from './registry-format.ts';
import type { ServiceRegistry, TouchResult } from './service-registry.ts';

/**
 * The most milliseconds from an expiry to the check that a client makes, at random: the first
 * client that checks tells the others.
 */
const EXPIRY_SPREAD = 500;
/**
 * The most milliseconds until missed changes are read, at random, since many clients miss the same
 * ones, as when Redis is back. Twice as long after each reading in a row that found nothing new.
 */
const READ_SPREAD = 100;
/**
 * Milliseconds after which a failed check is first retried; twice as long before each further
 * retry.
 */
const FIRST_RETRY = 250;
/** Milliseconds without a use after which a service counts as idle. */
const IDLE = 600_000;
/** The most ids that an error names. */
const MAX_NAMED = 10;
/**
 * The most changes that are buffered during a reading. If there are more, the registry is read
 * again.
 */
const MAX_BUFFERED = 1_000;

export interface InformerListener {
  /** The instances are known to be these, whether or not that is a change for watchers. */
  known(serviceName: string, instances: readonly ServiceInstance[]): void;
  changed(serviceName: string, instances: readonly ServiceInstance[]): void;
  /**
   * The instances may be out of date from now on: the registry cannot be reached, or is silent
   * about some of them.
   */
  stale(serviceName: string, error: unknown, known: boolean): void;
  /** The instances are up to date again. */
  fresh(serviceName: string): void;
  invalid(serviceName: string, entry: RegistryEntry, error: unknown): void;
  /** The service was not used for a while. */
  idle(serviceName: string): void;
}

export interface InformerOptions {
  /** Milliseconds without a message after which the informer checks whether it missed any. */
  refreshInterval: number;
  /** Milliseconds for which instances are kept that vanish together. */
  grace: number;
}

/**
 * `starting` until the first reading has ended, well or not: what it finds is no change for
 * watchers. `stopped` for ever: nothing is emitted or scheduled any more.
 */
type Lifecycle = 'starting' | 'running' | 'stopped';

/** The command that the informer waits for: there is one at a time. */
type Activity =
  | { readonly kind: 'waiting' }
  /** TOUCH asks for the version. A reading that begins meanwhile supersedes it. */
  | { readonly kind: 'touching' }
  /** READ asks for everything; changes that are published meanwhile are applied after it. */
  | { readonly kind: 'reading'; readonly done: Promise<void>; readonly buffered: Change[] };

/**
 * The state of the cache beside the registry: `current`; `lagging` if the registry has a later
 * version whose message may still arrive; or `gap` if a change was missed, so that the registry has
 * to be read.
 */
type Sync = 'current' | 'lagging' | 'gap';

const WAITING: Activity = { kind: 'waiting' };

/**
 * Keeps the instances of one service up to date, as client-go's Reflector does: it applies each
 * published change once and in order, reads the whole registry after a gap, and checks the version
 * of the registry when an instance should expire, or no message came for long.
 */
export class ServiceInformer {
  readonly serviceName: string;
  readonly #registry: ServiceRegistry;
  readonly #isSubscribed: () => boolean;
  readonly #refreshInterval: number;
  readonly #listener: InformerListener;
  readonly #cache: InstanceCache;
  #lifecycle: Lifecycle = 'starting';
  #activity: Activity = WAITING;
  #sync: Sync = 'current';
  /**
   * Why the registry cannot be reached, subscribed to or kept up to date; undefined while it can.
   */
  #trouble: { readonly error: unknown } | undefined = undefined;
  /** The state that was last emitted to the listener. */
  readonly #emitted = { instances: undefined as readonly ServiceInstance[] | undefined, stale: false };
  /** Redis's time of the last state that was taken over. */
  #asOf = 0;
  #timer: NodeJS.Timeout | undefined = undefined;
  /** Checks in a row that failed. */
  #failures = 0;
  /** Readings in a row that found nothing new. */
  #emptyReads = 0;
  /** `performance.now()` when the instances were last used. */
  #usedAt = performance.now();

  /** @param isSubscribed tells whether published changes arrive at the moment. */
  constructor(
    serviceName: string,
    registry: ServiceRegistry,
    isSubscribed: () => boolean,
    { refreshInterval, grace }: InformerOptions,
    listener: InformerListener,
  ) {
    this.serviceName = serviceName;
    this.#registry = registry;
    this.#isSubscribed = isSubscribed;
    this.#refreshInterval = refreshInterval;
    this.#listener = listener;
    this.#cache = new InstanceCache(serviceName, grace, (entry, error) =>
      listener.invalid(serviceName, entry, error),
    );
  }

  /** Whether the instances are known, from the registry or from an earlier process. */
  get known(): boolean {
    return this.#cache.filled;
  }

  /** Whether the instances may be out of date. */
  get stale(): boolean {
    return this.#emitted.stale;
  }

  get hasInstances(): boolean {
    return this.#cache.snapshot.length > 0;
  }

  get instances(): readonly ServiceInstance[] {
    this.#usedAt = performance.now();
    return this.#cache.snapshot;
  }

  /** Begins with the instances that an earlier process knew, until the registry can be read. */
  restore(instances: readonly ServiceInstance[]): void {
    if (this.known) return;
    this.#cache.restore(instances);
    this.#emitInstances();
  }

  /**
   * Sets a status that a health check of this process found while Redis was away. It holds until
   * the registry is read.
   */
  setStatus(instanceId: string, status: ServiceInstance['status']): boolean {
    if (!this.#cache.setStatus(instanceId, status)) return false;
    this.#emitInstances();
    this.#noteGap();
    return true;
  }

  /** Reads the whole registry, or joins a reading under way. */
  read(): Promise<void> {
    if (this.#activity.kind === 'reading') return this.#activity.done;
    const buffered: Change[] = [];
    const done = this.#read(buffered);
    this.#activity = { kind: 'reading', done, buffered };
    return done;
  }

  /**
   * Reads the registry until it has an instance as this process has written it, unless the message
   * of that has come already. A reading under way may have begun before.
   */
  async takeIn(instance: ServiceInstance): Promise<void> {
    const has = (known: ServiceInstance) =>
      known.instanceId === instance.instanceId && sameInstance(known, instance);
    if (this.#cache.snapshot.some(has)) return;
    if (this.#activity.kind === 'reading') await this.#activity.done.catch(() => {});
    if (this.#lifecycle !== 'stopped') await this.read();
  }

  /** Takes in a published message. */
  onMessage(text: string): void {
    const change = parseChange(text);
    if (change === undefined) this.#noteGap();
    else if (this.#activity.kind !== 'reading') this.#apply(change);
    else if (this.#activity.buffered.length < MAX_BUFFERED) this.#activity.buffered.push(change);
    else this.#noteGap();
  }

  /** To be called when messages begin to arrive: earlier ones may have been missed. */
  onSubscribed(): void {
    this.#failures = 0;
    this.#sync = 'gap';
    if (this.#activity.kind !== 'reading') this.#scheduleBackoff(READ_SPREAD, 0);
  }

  /** To be called when messages do not arrive any more. */
  onDisconnected(error: unknown): void {
    this.#noteTrouble(error);
    this.#emitStaleness();
  }

  stop(): void {
    this.#lifecycle = 'stopped';
    if (this.#activity.kind === 'touching') this.#activity = WAITING;
    clearTimeout(this.#timer);
  }

  async #read(buffered: Change[]): Promise<void> {
    clearTimeout(this.#timer);
    this.#sync = 'current';
    const { version } = this.#cache;
    try {
      const content = await this.#registry.read(this.serviceName);
      this.#cache.load(content, this.#isDataLost(content));
      this.#becomeCurrent(content);
      this.#emptyReads = content.version === version ? this.#emptyReads + 1 : 0;
    } catch (error) {
      this.#fail(error);
      throw error;
    } finally {
      for (const change of buffered.splice(0)) this.#apply(change);
      this.#activity = WAITING;
    }
    if (this.#hasGap()) this.#scheduleBackoff(READ_SPREAD, this.#emptyReads);
  }

  /**
   * Tells whether Redis lost data: it has an earlier version than the cache, or it began anew after
   * the last state that was taken over, since the first version of all is Redis's time in
   * microseconds.
   */
  #isDataLost({ version }: RegistryState): boolean {
    const { version: known } = this.#cache;
    if (known === undefined) return false;
    const asOf = this.#asOf * 1000;
    return version < known || (known < asOf && version >= asOf);
  }

  /** Reads the registry if a change was missed. */
  async #check(): Promise<void> {
    if (performance.now() - this.#usedAt > IDLE) this.#listener.idle(this.serviceName);
    if (this.#lifecycle === 'stopped' || this.#activity.kind === 'reading') return;
    if (this.known && !this.#hasGap() && !(await this.#hasMissedChange())) return;
    // A failure was handled where it happened.
    await this.read().catch(() => {});
  }

  /**
   * Asks for the version, and tells whether the message of a change is not going to arrive any
   * more.
   */
  async #hasMissedChange(): Promise<boolean> {
    if (this.#activity.kind === 'touching') return false;
    const touching: Activity = { kind: 'touching' };
    this.#activity = touching;
    try {
      const result = await this.#registry.touch(this.serviceName);
      if (this.#activity !== touching) return false;
      if (result.version === this.#cache.version) {
        this.#emptyReads = 0;
        this.#becomeCurrent(result);
        return false;
      }
      if (this.#sync === 'lagging' || !this.#isSubscribed()) return true;
      // The message may still be on its way, also that of an expiry which this very check brought
      // about.
      if (this.#sync === 'current') this.#sync = 'lagging';
      this.#schedule(READ_SPREAD);
    } catch (error) {
      if (this.#activity === touching) this.#fail(error);
    } finally {
      if (this.#activity === touching) this.#activity = WAITING;
    }
    return false;
  }

  #apply(change: Change): void {
    const { version } = this.#cache;
    if (version === undefined || (change.version <= version && change.now <= this.#asOf)) return;
    // A known version with a later time: a failover lost some versions, and Redis counts them
    // again.
    if (change.version !== version + 1) {
      this.#noteGap();
      return;
    }
    this.#asOf = change.now;
    this.#cache.apply(change);
    this.#catchUp();
    this.#emitInstances();
    this.#emitStaleness();
    this.#scheduleCheck(change.nextExpiry);
  }

  /** Has the registry read, once within the spread however many gaps are noted. */
  #noteGap(): void {
    if (this.#hasGap()) return;
    this.#sync = 'gap';
    if (this.#activity.kind !== 'reading') this.#scheduleBackoff(READ_SPREAD, this.#emptyReads);
  }

  #hasGap(): boolean {
    return this.#sync === 'gap';
  }

  /** The cache has the version that it lagged behind. A gap stays until the registry is read. */
  #catchUp(): void {
    if (this.#sync === 'lagging') this.#sync = 'current';
  }

  #becomeCurrent({ now, nextExpiry, rejection }: TouchResult): void {
    this.#asOf = now;
    this.#catchUp();
    if (rejection !== undefined) this.#noteTrouble(new RedisError(`Redis rejects writes: ${rejection}`));
    else {
      this.#failures = 0;
      if (this.#isSubscribed()) this.#trouble = undefined;
      this.#cache.expireGrace();
    }
    this.#emitInstances();
    this.#endStart();
    this.#emitStaleness();
    if (rejection === undefined) this.#scheduleCheck(nextExpiry);
    else if (!this.#hasGap()) this.#scheduleBackoff(FIRST_RETRY, this.#failures++);
  }

  #fail(error: unknown): void {
    this.#endStart();
    this.#sync = 'gap';
    this.#noteTrouble(error);
    this.#emitStaleness();
    this.#scheduleBackoff(FIRST_RETRY, this.#failures++);
  }

  #endStart(): void {
    if (this.#lifecycle === 'starting') this.#lifecycle = 'running';
  }

  /**
   * Notes why the registry is out of reach. Until it is back, missing instances can give no sign of
   * life.
   */
  #noteTrouble(error: unknown): void {
    this.#cache.pauseGrace();
    this.#trouble ??= { error };
  }

  #emitStaleness(): void {
    const { missing } = this.#cache;
    const stale = this.#trouble !== undefined || missing.length > 0;
    if (stale === this.#emitted.stale || this.#lifecycle === 'stopped') return;
    this.#emitted.stale = stale;
    if (stale) {
      const error = this.#trouble === undefined ? this.#missingError(missing) : this.#trouble.error;
      this.#listener.stale(this.serviceName, error, this.known);
    } else this.#listener.fresh(this.serviceName);
  }

  #missingError(missing: readonly string[]): RedisError {
    const ids = missing.slice(0, MAX_NAMED).join(', ') + (missing.length > MAX_NAMED ? ', …' : '');
    const { length } = this.#cache.snapshot;
    return new RedisError(
      `${missing.length} of the ${length} instances of '${this.serviceName}' are gone from Redis without having left, and are kept for now: ${ids}`,
    );
  }

  #emitInstances(): void {
    const { snapshot } = this.#cache;
    if (snapshot === this.#emitted.instances || this.#lifecycle === 'stopped') return;
    this.#emitted.instances = snapshot;
    // The listener may stop the informer in between.
    const running = this.#lifecycle === 'running';
    this.#listener.known(this.serviceName, snapshot);
    if (running) this.#listener.changed(this.serviceName, snapshot);
  }

  /**
   * Schedules a check for the next expiry, or the end of the grace of a missing instance, or the
   * refresh interval.
   */
  #scheduleCheck(nextExpiry: number): void {
    if (this.#hasGap()) return;
    const usual = jitter(this.#refreshInterval, 0.8, 1);
    const expiry = nextExpiry + jitter(EXPIRY_SPREAD, 0, 1);
    this.#schedule(Math.min(usual, expiry, this.#cache.graceEnds));
  }

  /**
   * Schedules a check after at most `first`, doubled `times` times; at random after at least half
   * of that.
   */
  #scheduleBackoff(first: number, times: number): void {
    const wait = Math.min(this.#refreshInterval, first * 2 ** times);
    this.#schedule(jitter(wait, 0.5, 1));
  }

  #schedule(wait: number): void {
    clearTimeout(this.#timer);
    if (this.#lifecycle === 'stopped') return;
    this.#timer = setTimeout(() => void this.#check(), Math.max(1, Math.ceil(wait))).unref();
  }
}
