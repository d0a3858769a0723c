import { jitter } from '../internal/jitter.ts';
import type { Policy } from '../policies/policy.ts';
import type { Probe, ProbeResult } from './health-probe.ts';
import { OPERATION_TIMEOUT, withTimeout } from './operation-timeout.ts';
import { RiseFallCounter, type RiseFallThresholds } from './rise-fall-counter.ts';
import type { ServiceDiscovery, Unsubscribe } from './service-discovery.ts';
import type { ServiceInstance } from './service-instance.ts';

/** A change of an instance's status that was written to the discovery. */
export interface HealthChange {
  /** The instance with its new status. */
  readonly instance: ServiceInstance;
  /** The reason that the deciding check gave, such as `it responded with 503`. */
  readonly reason: string;
  /** The error of that check, if there was one. */
  readonly cause?: unknown;
}

export interface HealthChecksOptions extends RiseFallThresholds {
  readonly discovery: ServiceDiscovery;
  readonly serviceName: string;
  readonly probe: Probe;
  /** Bounds the checks under way. */
  readonly bulkhead: Policy;
  /** The most milliseconds between two checks of an instance. */
  readonly interval: number;
  /** Tells whether this process may report the result of a check now. */
  readonly mayReport: () => boolean;
  readonly onChange: (change: HealthChange) => void;
  readonly onFailure: (error: unknown) => void;
}

/** An instance that is checked. */
interface Target {
  instance: ServiceInstance;
  readonly counter: RiseFallCounter;
  /** Aborted when the instance is not checked any more. */
  readonly dropped: AbortController;
  timer: NodeJS.Timeout | undefined;
  /**
   * The status that was written last; undefined once the discovery shows another status than
   * before.
   */
  written: ServiceInstance['status'] | undefined;
}

/**
 * Milliseconds for each new instance: the first checks of instances that are new at once are spread
 * over the sum.
 */
const SPACING = 10;

/**
 * Checks the instances of one service, from the construction of this object until it is stopped.
 */
export class HealthChecks {
  readonly #options: HealthChecksOptions;
  readonly #targets = new Map<string, Target>();
  readonly #underWay = new Set<Promise<void>>();
  #unwatch: Unsubscribe | undefined = undefined;
  #timer: NodeJS.Timeout | undefined = undefined;
  #pushed = false;
  #stopped = false;

  constructor(options: HealthChecksOptions) {
    this.#options = options;
    void this.#watch();
  }

  /** Cancels the checks under way, and waits for the statuses that are being written. */
  async stop(): Promise<void> {
    this.#stopped = true;
    clearTimeout(this.#timer);
    this.#unwatch?.();
    this.#update([]);
    await Promise.all(this.#underWay);
  }

  async #watch(): Promise<void> {
    const { discovery, serviceName, interval, onFailure } = this.#options;
    try {
      this.#unwatch ??= discovery.watch(serviceName, (instances) => {
        this.#pushed = true;
        this.#update(instances);
      });
      const instances = await discovery.instances(serviceName);
      if (!this.#pushed && !this.#stopped) this.#update(instances);
    } catch (error) {
      if (this.#stopped) return;
      onFailure(error);
      if (!this.#pushed)
        this.#timer = setTimeout(() => void this.#watch(), jitter(interval, 1, 0.85)).unref();
    }
  }

  #update(instances: readonly ServiceInstance[]): void {
    const listed = new Map(instances.map((instance) => [instance.instanceId, instance]));
    for (const [instanceId, target] of this.#targets) {
      const instance = listed.get(instanceId);
      if (instance === undefined || !isSameAddress(instance, target.instance)) this.#drop(instanceId, target);
    }
    const added: Target[] = [];
    for (const [instanceId, instance] of listed) {
      const target = this.#targets.get(instanceId);
      if (target === undefined) added.push(this.#add(instance));
      else if (target.instance !== instance) {
        if (target.instance.status !== instance.status) target.written = undefined;
        target.instance = instance;
      }
    }
    const spread = Math.min(this.#options.interval, SPACING * added.length);
    for (const target of added) this.#checkAfter(target, spread * Math.random());
  }

  #add(instance: ServiceInstance): Target {
    const counter = new RiseFallCounter(instance.status, this.#options);
    const dropped = new AbortController();
    const target = { instance, counter, dropped, timer: undefined, written: undefined };
    this.#targets.set(instance.instanceId, target);
    return target;
  }

  #drop(instanceId: string, target: Target): void {
    this.#targets.delete(instanceId);
    clearTimeout(target.timer);
    target.dropped.abort();
  }

  #checkAfter(target: Target, wait: number): void {
    target.timer = setTimeout(() => {
      const check = this.#check(target).finally(() => this.#underWay.delete(check));
      this.#underWay.add(check);
    }, wait).unref();
  }

  async #check(target: Target): Promise<void> {
    const { probe, bulkhead, interval, mayReport, onFailure } = this.#options;
    const { signal } = target.dropped;
    try {
      const result = await bulkhead.execute(() => probe(target.instance, signal), { signal });
      if (!signal.aborted && mayReport()) await this.#report(target, result);
    } catch (error) {
      if (!signal.aborted) onFailure(error);
    }
    if (!signal.aborted) this.#checkAfter(target, jitter(interval, 1, 0.85));
  }

  /**
   * Writes the status that follows from a result to the discovery, unless the discovery shows it
   * already.
   */
  async #report(target: Target, { passed, reason, cause }: ProbeResult): Promise<void> {
    const { discovery, serviceName, onChange } = this.#options;
    const { instance, counter, dropped } = target;
    const status = counter.record(passed);
    if (status === instance.status) return;
    const known = await withTimeout(OPERATION_TIMEOUT, () =>
      discovery.update(serviceName, instance.instanceId, { status }),
    );
    if (!known || dropped.signal.aborted || target.written === status) return;
    target.written = status;
    onChange({ instance: Object.freeze({ ...instance, status }), reason, cause });
  }
}

function isSameAddress(one: ServiceInstance, other: ServiceInstance): boolean {
  return one.host === other.host && one.port === other.port && one.protocol === other.protocol;
}
