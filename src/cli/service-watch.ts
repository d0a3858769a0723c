import { setTimeout as wait } from 'node:timers/promises';
import { HoldfastError } from '../errors.ts';
import type { RedisConnection } from '../redis/redis-connection.ts';
import { RedisSubscriber } from '../redis/redis-subscriber.ts';
import type { ServiceRegistry } from '../redis/service-registry.ts';
import { changesBetween, type ServiceChange } from './service-changes.ts';
import { readServices, type ServiceReport } from './service-report.ts';

/** Since when Redis cannot be reached, and why. */
export interface Staleness {
  readonly since: Date;
  readonly reason: string;
}

export type ChangeEvent =
  | ServiceChange
  | ({ readonly change: 'stale' } & Staleness)
  | { readonly change: 'fresh' };

export interface WatchState {
  /** In the order of the names. */
  readonly reports: readonly ServiceReport[];
  /** Undefined while it is up to date. */
  readonly stale: Staleness | undefined;
}

/** Shows what is known after each look, with what is new in it; at first, what is there. */
export type WatchView = (state: WatchState, news: readonly ChangeEvent[]) => void;

export interface WatchOptions {
  /** Empty for all, those included that are yet to come. */
  names: readonly string[];
  view: WatchView;
  /** What an error says to whoever looks. */
  describe: (error: HoldfastError) => string;
}

/** Milliseconds after which it looks at all services again: for heartbeats, new services, and what was not heard. */
const LOOK_INTERVAL = 2_000;
/** Milliseconds in which what is published is gathered before it looks: instances often start and stop together. */
const GATHERING = 50;

/** Follows services: looks at one when something is published of it, and at all of them every other second. */
export class ServiceWatch {
  readonly #registry: ServiceRegistry;
  readonly #options: WatchOptions;
  readonly #subscriber: RedisSubscriber;
  readonly #reports = new Map<string, ServiceReport>();
  readonly #serviceOf = new Map<string, string>();
  /** Services of which something was published since they were looked at. */
  readonly #touched = new Set<string>();
  #stale: Staleness | undefined = undefined;
  #beginning = true;
  /** `performance.now()` when it looks at all services. */
  #nextLook = 0;
  #wake: () => void = () => {};

  constructor(connection: RedisConnection, registry: ServiceRegistry, options: WatchOptions) {
    this.#registry = registry;
    this.#options = options;
    this.#subscriber = new RedisSubscriber(connection, {
      message: (channel) => this.#heard(channel),
      up: () => this.#lookSoon(),
      down: (error) => {
        this.#becomeStale(error);
        this.#lookSoon();
      },
    });
  }

  /**
   * Ends when the signal is aborted.
   *
   * @throws RedisError if Redis is away at the beginning.
   */
  async run(signal: AbortSignal): Promise<void> {
    signal.addEventListener('abort', () => this.#wake(), { once: true });
    try {
      while (!signal.aborted) {
        await this.#look(signal);
        await this.#pause(signal);
      }
    } finally {
      this.#subscriber.close();
    }
  }

  async #look(signal: AbortSignal): Promise<void> {
    try {
      if (performance.now() >= this.#nextLook) await this.#lookAtAll();
      else await this.#lookAtTouched();
    } catch (error) {
      if (!(error instanceof HoldfastError)) throw error;
      if (signal.aborted) return;
      if (this.#beginning) throw error;
      this.#becomeStale(error);
    }
  }

  async #lookAtAll(): Promise<void> {
    this.#nextLook = performance.now() + LOOK_INTERVAL;
    this.#touched.clear();
    const { names } = this.#options;
    const stale = this.#stale;
    const listed = new Set(names.length > 0 ? names : await this.#registry.services());
    const reports = await readServices(this.#registry, [...new Set([...listed, ...this.#reports.keys()])]);
    const fresh: ChangeEvent[] = [];
    // Had the connection been lost meanwhile, it would have to look once more.
    if (stale !== undefined && stale === this.#stale) {
      this.#stale = undefined;
      fresh.push({ change: 'fresh' });
    }
    const changes = reports.flatMap((report) => this.#take(report));
    for (const { serviceName, instances } of reports) {
      if (!listed.has(serviceName) && instances.length === 0) this.#forget(serviceName);
    }
    this.#beginning = false;
    this.#show([...fresh, ...changes]);
  }

  async #lookAtTouched(): Promise<void> {
    await wait(GATHERING);
    const names = [...this.#touched];
    this.#touched.clear();
    const reports = await readServices(this.#registry, names);
    this.#show(reports.flatMap((report) => this.#take(report)));
  }

  #take(report: ServiceReport): ServiceChange[] {
    const { serviceName } = report;
    const nothing = { serviceName, version: 0, now: 0, instances: [], invalid: [] };
    const before = this.#reports.get(serviceName) ?? (this.#beginning ? undefined : nothing);
    this.#reports.set(serviceName, report);
    this.#listen(serviceName);
    return changesBetween(before, report);
  }

  #listen(serviceName: string): void {
    const channel = this.#registry.channelOf(serviceName);
    if (this.#serviceOf.has(channel)) return;
    this.#serviceOf.set(channel, serviceName);
    // If it is not heard, the next look at all services finds what is new.
    this.#subscriber.subscribe(channel).catch(() => {});
  }

  #forget(serviceName: string): void {
    const channel = this.#registry.channelOf(serviceName);
    this.#reports.delete(serviceName);
    this.#serviceOf.delete(channel);
    this.#subscriber.unsubscribe(channel).catch(() => {});
  }

  #heard(channel: string): void {
    const serviceName = this.#serviceOf.get(channel);
    if (serviceName === undefined) return;
    this.#touched.add(serviceName);
    this.#wake();
  }

  #lookSoon(): void {
    this.#nextLook = 0;
    this.#wake();
  }

  #becomeStale(error: HoldfastError): void {
    if (this.#stale !== undefined) return;
    this.#stale = { since: new Date(), reason: this.#options.describe(error) };
    this.#show([{ change: 'stale', ...this.#stale }]);
  }

  #show(news: readonly ChangeEvent[]): void {
    const reports = [...this.#reports.values()].sort((one, other) =>
      one.serviceName < other.serviceName ? -1 : 1,
    );
    this.#options.view({ reports, stale: this.#stale }, news);
  }

  /** Until something happens, or the next look is due. Its timer is what holds the process open. */
  #pause(signal: AbortSignal): Promise<void> {
    if (signal.aborted || this.#touched.size > 0) return Promise.resolve();
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, Math.max(0, this.#nextLook - performance.now()));
      this.#wake = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }
}
