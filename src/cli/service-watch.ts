import { setTimeout as wait } from 'node:timers/promises';
import { HoldfastError } from '../errors.ts';
import type { RedisConnection } from '../redis/redis-connection.ts';
import { RedisSubscriber } from '../redis/redis-subscriber.ts';
import type { ServiceRegistry } from '../redis/service-registry.ts';
import { findChanges, type ServiceChange } from './service-changes.ts';
import { readServices, type ServiceReport } from './service-report.ts';

/** The time since when Redis cannot be reached, and the reason. */
export interface Staleness {
  readonly since: Date;
  readonly reason: string;
}

export type ChangeEvent =
  | ServiceChange
  | ({ readonly change: 'stale' } & Staleness)
  | { readonly change: 'fresh' };

export interface WatchState {
  /** The reports in the order of the names. */
  readonly reports: readonly ServiceReport[];
  /** Undefined while the reports are up to date. */
  readonly stale: Staleness | undefined;
}

/**
 * Shows the state after each reading, with the events since the last one; at first, one event for
 * each instance.
 */
export type WatchView = (state: WatchState, events: readonly ChangeEvent[]) => void;

export interface WatchOptions {
  /** The names of the services; empty for all, also for those that are registered later. */
  names: readonly string[];
  view: WatchView;
  /** Gives the message of an error for the user. */
  describe: (error: HoldfastError) => string;
}

/**
 * Milliseconds after which all services are read again, for heartbeats, new services, and messages
 * that were missed.
 */
const READ_INTERVAL = 2_000;
/**
 * Milliseconds for which messages are gathered before a reading: instances often start and stop
 * together.
 */
const GATHER_TIME = 50;

/**
 * Watches services: reads a service when a change of it is published, and all services every other
 * second.
 */
export class ServiceWatch {
  readonly #registry: ServiceRegistry;
  readonly #options: WatchOptions;
  readonly #subscriber: RedisSubscriber;
  readonly #reports = new Map<string, ServiceReport>();
  readonly #serviceOf = new Map<string, string>();
  /** Services of which a change was published since they were read. */
  readonly #touched = new Set<string>();
  #stale: Staleness | undefined = undefined;
  /** Whether no service was read yet. */
  #starting = true;
  /** `performance.now()` when all services are read. */
  #nextReading = 0;
  #wake: () => void = () => {};

  constructor(connection: RedisConnection, registry: ServiceRegistry, options: WatchOptions) {
    this.#registry = registry;
    this.#options = options;
    this.#subscriber = new RedisSubscriber(connection, {
      message: (channel) => this.#onMessage(channel),
      up: () => this.#readSoon(),
      down: (error) => {
        this.#becomeStale(error);
        this.#readSoon();
      },
    });
  }

  /**
   * Watches until the signal is aborted.
   *
   * @throws RedisError if Redis is away at the first reading.
   */
  async run(signal: AbortSignal): Promise<void> {
    signal.addEventListener('abort', () => this.#wake(), { once: true });
    try {
      while (!signal.aborted) {
        await this.#read(signal);
        await this.#pause(signal);
      }
    } finally {
      this.#subscriber.close();
    }
  }

  async #read(signal: AbortSignal): Promise<void> {
    try {
      if (performance.now() >= this.#nextReading) await this.#readAll();
      else await this.#readTouched();
    } catch (error) {
      if (!(error instanceof HoldfastError)) throw error;
      if (signal.aborted) return;
      if (this.#starting) throw error;
      this.#becomeStale(error);
    }
  }

  async #readAll(): Promise<void> {
    this.#nextReading = performance.now() + READ_INTERVAL;
    this.#touched.clear();
    const { names } = this.#options;
    const stale = this.#stale;
    const listed = new Set(names.length > 0 ? names : await this.#registry.services());
    const reports = await readServices(this.#registry, [...new Set([...listed, ...this.#reports.keys()])]);
    const fresh: ChangeEvent[] = [];
    // If the connection was lost meanwhile, the services have to be read once more.
    if (stale !== undefined && stale === this.#stale) {
      this.#stale = undefined;
      fresh.push({ change: 'fresh' });
    }
    const changes = reports.flatMap((report) => this.#applyReport(report));
    for (const { serviceName, instances } of reports) {
      if (!listed.has(serviceName) && instances.length === 0) this.#forget(serviceName);
    }
    this.#starting = false;
    this.#show([...fresh, ...changes]);
  }

  async #readTouched(): Promise<void> {
    await wait(GATHER_TIME);
    const names = [...this.#touched];
    this.#touched.clear();
    const reports = await readServices(this.#registry, names);
    this.#show(reports.flatMap((report) => this.#applyReport(report)));
  }

  #applyReport(report: ServiceReport): ServiceChange[] {
    const { serviceName } = report;
    const nothing = { serviceName, version: 0, now: 0, instances: [], invalid: [] };
    const before = this.#reports.get(serviceName) ?? (this.#starting ? undefined : nothing);
    this.#reports.set(serviceName, report);
    this.#subscribe(serviceName);
    return findChanges(before, report);
  }

  #subscribe(serviceName: string): void {
    const channel = this.#registry.channelOf(serviceName);
    if (this.#serviceOf.has(channel)) return;
    this.#serviceOf.set(channel, serviceName);
    // If that fails, the next reading of all services finds the changes.
    this.#subscriber.subscribe(channel).catch(() => {});
  }

  #forget(serviceName: string): void {
    const channel = this.#registry.channelOf(serviceName);
    this.#reports.delete(serviceName);
    this.#serviceOf.delete(channel);
    this.#subscriber.unsubscribe(channel).catch(() => {});
  }

  #onMessage(channel: string): void {
    const serviceName = this.#serviceOf.get(channel);
    if (serviceName === undefined) return;
    this.#touched.add(serviceName);
    this.#wake();
  }

  #readSoon(): void {
    this.#nextReading = 0;
    this.#wake();
  }

  #becomeStale(error: HoldfastError): void {
    if (this.#stale !== undefined) return;
    this.#stale = { since: new Date(), reason: this.#options.describe(error) };
    this.#show([{ change: 'stale', ...this.#stale }]);
  }

  #show(events: readonly ChangeEvent[]): void {
    const reports = [...this.#reports.values()].sort((one, other) =>
      one.serviceName < other.serviceName ? -1 : 1,
    );
    this.#options.view({ reports, stale: this.#stale }, events);
  }

  /**
   * Waits until something happens, or the next reading is due. Its timer holds the process open.
   */
  #pause(signal: AbortSignal): Promise<void> {
    if (signal.aborted || this.#touched.size > 0) return Promise.resolve();
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, Math.max(0, this.#nextReading - performance.now()));
      this.#wake = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }
}
