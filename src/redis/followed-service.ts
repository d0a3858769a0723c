import type { ServiceInstance } from '../discovery/service-instance.ts';
import { RedisError } from '../errors.ts';
import { type Change, parseChange, type RegistryEntry, type RegistryState } from './registry-format.ts';
import type { RegistryLook, ServiceRegistry } from './service-registry.ts';
import { ServiceView } from './service-view.ts';

/** Up to so many milliseconds after an expiry a client looks, at random: the first one to do so tells the others. */
const EXPIRY_SPREAD = 500;
/**
 * What was missed is read within so many milliseconds, at random: many clients miss the same, as when Redis is back.
 * Twice as long each time that nothing was missed in truth.
 */
const READ_SPREAD = 100;
/** Milliseconds after which a failed look is repeated at first; twice as long each time after. */
const FIRST_RETRY = 250;
/** Milliseconds after which a service that nobody asked for may be let go. */
const IDLE = 600_000;
/** Ids that an error names at most. */
const MAX_NAMED = 10;
/** Changes that are kept while the registry is being read; with more of them it is read again. */
const MAX_HELD = 1_000;

export interface FollowerListener {
  /** What is known now, whether or not it is a change that watchers are told of. */
  known(serviceName: string, instances: readonly ServiceInstance[]): void;
  changed(serviceName: string, instances: readonly ServiceInstance[]): void;
  /** What is known may be out of date from now on: the registry cannot be reached, or is silent about some. */
  stale(serviceName: string, error: unknown): void;
  /** It is up to date again. */
  fresh(serviceName: string): void;
  invalid(serviceName: string, entry: RegistryEntry, error: unknown): void;
  /** Nobody has asked for it for a while. */
  idle(serviceName: string): void;
}

export interface FollowerOptions {
  /** Milliseconds without news after which it looks whether anything was missed. */
  refreshInterval: number;
  /** Milliseconds for which those are kept that vanish together. */
  grace: number;
}

/**
 * Keeps what is known of one service up to date: by what is published, each change once and in order; by reading
 * all of it after a gap; and by a look at its version when an instance should expire, or there was no news for long.
 */
export class FollowedService {
  readonly serviceName: string;
  readonly #registry: ServiceRegistry;
  readonly #refreshInterval: number;
  readonly #listener: FollowerListener;
  readonly #hearing: () => boolean;
  readonly #view: ServiceView;
  #told: readonly ServiceInstance[] | undefined = undefined;
  #beginning = true;
  #recalled = false;
  /** Why the registry cannot be reached, heard or kept up to date; undefined while it can. */
  #trouble: { readonly error: unknown } | undefined = undefined;
  #stale = false;
  #gap = false;
  #behind = false;
  /** Redis's time of what was taken in last. */
  #asOf = 0;
  #reading: Promise<void> | undefined = undefined;
  /** A question for the version that is not answered yet; a reading answers it too. */
  #asking: Promise<RegistryLook> | undefined = undefined;
  #held: Change[] = [];
  #timer: NodeJS.Timeout | undefined = undefined;
  /** Looks that failed in a row. */
  #failures = 0;
  /** Readings in a row that found nothing new. */
  #inVain = 0;
  #askedAt = performance.now();
  #stopped = false;

  /** @param hearing whether what is published is heard at the moment. */
  constructor(
    serviceName: string,
    registry: ServiceRegistry,
    hearing: () => boolean,
    { refreshInterval, grace }: FollowerOptions,
    listener: FollowerListener,
  ) {
    this.serviceName = serviceName;
    this.#registry = registry;
    this.#hearing = hearing;
    this.#refreshInterval = refreshInterval;
    this.#listener = listener;
    this.#view = new ServiceView(serviceName, grace, (entry, error) =>
      listener.invalid(serviceName, entry, error),
    );
  }

  /** Whether anything is known: the registry was read, or an earlier process's knowledge taken over. */
  get known(): boolean {
    return this.#recalled || this.#view.version !== undefined;
  }

  /** Whether what is known may be out of date. */
  get stale(): boolean {
    return this.#stale;
  }

  /** Whether any instance is known. */
  get inhabited(): boolean {
    return this.#view.snapshot.length > 0;
  }

  get instances(): readonly ServiceInstance[] {
    this.#askedAt = performance.now();
    return this.#view.snapshot;
  }

  /** Begins with what an earlier process knew, until the registry can be read. */
  recall(instances: readonly ServiceInstance[]): void {
    if (this.known) return;
    this.#recalled = true;
    this.#view.recall(instances);
    this.#tell();
  }

  /** What a health check of this process found while the registry could not be told: it stands until that is read. */
  setStatus(instanceId: string, status: ServiceInstance['status']): boolean {
    if (!this.#view.setStatus(instanceId, status)) return false;
    this.#tell();
    this.#missed();
    return true;
  }

  /** Reads all of it; a reading under way is joined. */
  read(): Promise<void> {
    this.#reading ??= this.#read().finally(() => {
      this.#reading = undefined;
    });
    return this.#reading;
  }

  /** Takes in what was published. */
  hear(text: string): void {
    const change = parseChange(text);
    if (change !== undefined && this.#reading === undefined) this.#follow(change);
    else if (change !== undefined && this.#held.length < MAX_HELD) this.#held.push(change);
    else this.#missed();
  }

  /** What is published is heard from now on: what was published before may have been missed. */
  hearsAgain(): void {
    this.#failures = 0;
    this.#gap = true;
    if (this.#reading === undefined) this.#lookAgain(READ_SPREAD, 0);
  }

  /** Nothing that is published is heard from now on. */
  hearsNothing(error: unknown): void {
    this.#troubled(error);
    this.#tellStaleness();
  }

  stop(): void {
    this.#stopped = true;
    this.#asking = undefined;
    clearTimeout(this.#timer);
  }

  async #read(): Promise<void> {
    clearTimeout(this.#timer);
    this.#gap = false;
    this.#asking = undefined;
    const { version } = this.#view;
    try {
      const content = await this.#registry.read(this.serviceName);
      this.#view.load(content, this.#hasForgotten(content));
      this.#upToDate(content);
      this.#inVain = content.version === version ? this.#inVain + 1 : 0;
    } catch (error) {
      this.#failed(error);
      throw error;
    } finally {
      const held = this.#held;
      this.#held = [];
      for (const change of held) this.#follow(change);
    }
    if (this.#gap) this.#lookAgain(READ_SPREAD, this.#inVain);
  }

  /**
   * Whether Redis lost what it held: it is at an earlier version, or it began anew after the last news of it, as the
   * first version of all is its time in microseconds.
   */
  #hasForgotten({ version }: RegistryState): boolean {
    const { version: known } = this.#view;
    if (known === undefined) return false;
    const lastNews = this.#asOf * 1000;
    return version < known || (known < lastNews && version >= lastNews);
  }

  /** Reads again only if something was missed. */
  async #look(): Promise<void> {
    if (performance.now() - this.#askedAt > IDLE) this.#listener.idle(this.serviceName);
    if (this.#stopped || this.#reading !== undefined) return;
    if (this.known && !this.#gap && !(await this.#isBehind())) return;
    // What becomes of a failure is settled where it happens.
    await this.read().catch(() => {});
  }

  /** Whether something was missed for good. */
  async #isBehind(): Promise<boolean> {
    if (this.#asking !== undefined) return false;
    const question = this.#registry.touch(this.serviceName);
    this.#asking = question;
    try {
      const state = await question;
      if (this.#asking !== question) return false;
      if (state.version === this.#view.version) {
        this.#inVain = 0;
        this.#upToDate(state);
        return false;
      }
      if (this.#behind || !this.#hearing()) return true;
      // The news of it may still be on its way, that of an expiry that this very look brought about included.
      this.#behind = true;
      this.#lookIn(READ_SPREAD);
    } catch (error) {
      if (this.#asking === question) this.#failed(error);
    } finally {
      if (this.#asking === question) this.#asking = undefined;
    }
    return false;
  }

  #follow(change: Change): void {
    const { version } = this.#view;
    if (version === undefined || (change.version <= version && change.now <= this.#asOf)) return;
    // A version that is there already, and comes later: a failover lost some, and they are given out anew.
    if (change.version !== version + 1) {
      this.#missed();
      return;
    }
    this.#asOf = change.now;
    this.#view.apply(change);
    this.#behind = false;
    this.#tell();
    this.#tellStaleness();
    this.#lookAt(change.nextExpiry);
  }

  /** However often it is told so, it reads once within the spread. */
  #missed(): void {
    if (this.#gap) return;
    this.#gap = true;
    if (this.#reading === undefined) this.#lookAgain(READ_SPREAD, this.#inVain);
  }

  #upToDate({ now, nextExpiry, rejection }: RegistryLook): void {
    this.#asOf = now;
    this.#behind = false;
    if (rejection !== undefined) this.#troubled(new RedisError(`Redis rejects writes: ${rejection}`));
    else {
      this.#failures = 0;
      if (this.#hearing()) this.#trouble = undefined;
      this.#view.settle();
    }
    this.#tell();
    this.#beginning = false;
    this.#tellStaleness();
    if (rejection === undefined) this.#lookAt(nextExpiry);
    else if (!this.#gap) this.#lookAgain(FIRST_RETRY, this.#failures++);
  }

  #failed(error: unknown): void {
    this.#beginning = false;
    this.#gap = true;
    this.#troubled(error);
    this.#tellStaleness();
    this.#lookAgain(FIRST_RETRY, this.#failures++);
  }

  /** Whoever is missing can give no sign. */
  #troubled(error: unknown): void {
    this.#view.suspend();
    this.#trouble ??= { error };
  }

  #tellStaleness(): void {
    const { missing } = this.#view;
    const stale = this.#trouble !== undefined || missing.length > 0;
    if (stale === this.#stale || this.#stopped) return;
    this.#stale = stale;
    if (stale) this.#listener.stale(this.serviceName, this.#trouble?.error ?? this.#silence(missing));
    else this.#listener.fresh(this.serviceName);
  }

  #silence(missing: readonly string[]): RedisError {
    const ids = missing.slice(0, MAX_NAMED).join(', ') + (missing.length > MAX_NAMED ? ', …' : '');
    const { length } = this.#view.snapshot;
    return new RedisError(
      `${missing.length} of the ${length} instances of '${this.serviceName}' are gone from Redis without having left, and are kept for now: ${ids}`,
    );
  }

  #tell(): void {
    const { snapshot } = this.#view;
    if (snapshot === this.#told || this.#stopped) return;
    this.#told = snapshot;
    this.#listener.known(this.serviceName, snapshot);
    if (!this.#beginning) this.#listener.changed(this.serviceName, snapshot);
  }

  /** When the next instance should have expired, or the grace period of a missing one is over; else after a while. */
  #lookAt(nextExpiry: number): void {
    if (this.#gap) return;
    const usual = this.#refreshInterval * (0.8 + Math.random() / 5);
    const expiry = nextExpiry + EXPIRY_SPREAD * Math.random();
    this.#lookIn(Math.min(usual, expiry, this.#view.graceEnds));
  }

  /** After at most `first`, twice as long each time; at least half of it, at random. */
  #lookAgain(first: number, times: number): void {
    const wait = Math.min(this.#refreshInterval, first * 2 ** times);
    this.#lookIn(wait * (0.5 + Math.random() / 2));
  }

  #lookIn(wait: number): void {
    clearTimeout(this.#timer);
    if (this.#stopped) return;
    this.#timer = setTimeout(() => void this.#look(), Math.max(1, Math.ceil(wait))).unref();
  }
}
