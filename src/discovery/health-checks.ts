import type { Policy } from '../policies/policy.ts';
import { HealthJudge, type Thresholds } from './health-judge.ts';
import type { Finding, Probe } from './health-probe.ts';
import { jittered, PATIENCE, within } from './health-time.ts';
import type { ServiceDiscovery, Unsubscribe } from './service-discovery.ts';
import type { ServiceInstance } from './service-instance.ts';

/** An instance whose status the discovery was told to change. */
export interface HealthChange {
  /** With its new status. */
  readonly instance: ServiceInstance;
  /** What the check saw that decided it, as `it answered 503`. */
  readonly reason: string;
  /** The error of that check, if it was one. */
  readonly cause?: unknown;
}

export interface HealthChecksOptions extends Thresholds {
  readonly discovery: ServiceDiscovery;
  readonly serviceName: string;
  readonly probe: Probe;
  /** Bounds the checks under way. */
  readonly bulkhead: Policy;
  /** Milliseconds between two checks of an instance, at most. */
  readonly interval: number;
  /** Whether what is found now counts. */
  readonly counts: () => boolean;
  readonly onChange: (change: HealthChange) => void;
  readonly onFailure: (error: unknown) => void;
}

/** An instance that is checked. */
interface Target {
  instance: ServiceInstance;
  readonly judge: HealthJudge;
  /** Aborted when it is not to be checked any more. */
  readonly dropped: AbortController;
  timer: NodeJS.Timeout | undefined;
  /** The status that the discovery was told, until it shows another than before. */
  told: ServiceInstance['status'] | undefined;
}

/** Milliseconds for each of the instances that are new at once, over which their first checks are spread. */
const SPACING = 10;

/** The checks of the instances of one service, from its construction until it is stopped. */
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

  /** Gives up the checks under way; waits for what is being written. */
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
      if (!this.#pushed) this.#timer = setTimeout(() => void this.#watch(), jittered(interval)).unref();
    }
  }

  #update(instances: readonly ServiceInstance[]): void {
    const listed = new Map(instances.map((instance) => [instance.instanceId, instance]));
    for (const [instanceId, target] of this.#targets) {
      const instance = listed.get(instanceId);
      if (instance === undefined || !atSamePlace(instance, target.instance)) this.#drop(instanceId, target);
    }
    const added: Target[] = [];
    for (const [instanceId, instance] of listed) {
      const target = this.#targets.get(instanceId);
      if (target === undefined) added.push(this.#add(instance));
      else if (target.instance !== instance) {
        if (target.instance.status !== instance.status) target.told = undefined;
        target.instance = instance;
      }
    }
    const spread = Math.min(this.#options.interval, SPACING * added.length);
    for (const target of added) this.#checkAfter(target, spread * Math.random());
  }

  #add(instance: ServiceInstance): Target {
    const judge = new HealthJudge(instance.status, this.#options);
    const target = { instance, judge, dropped: new AbortController(), timer: undefined, told: undefined };
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
    const { probe, bulkhead, interval, counts, onFailure } = this.#options;
    const { signal } = target.dropped;
    try {
      const finding = await bulkhead.execute(() => probe(target.instance, signal), { signal });
      if (!signal.aborted && counts()) await this.#take(target, finding);
    } catch (error) {
      if (!signal.aborted) onFailure(error);
    }
    if (!signal.aborted) this.#checkAfter(target, jittered(interval));
  }

  /** Tells the discovery what follows from a finding, unless it shows that already. */
  async #take(target: Target, { passed, reason, cause }: Finding): Promise<void> {
    const { discovery, serviceName, onChange } = this.#options;
    const { instance, judge, dropped } = target;
    const status = judge.judge(passed);
    if (status === instance.status) return;
    const known = await within(PATIENCE, () =>
      discovery.update(serviceName, instance.instanceId, { status }),
    );
    if (!known || dropped.signal.aborted || target.told === status) return;
    target.told = status;
    onChange({ instance: Object.freeze({ ...instance, status }), reason, cause });
  }
}

function atSamePlace(one: ServiceInstance, other: ServiceInstance): boolean {
  return one.host === other.host && one.port === other.port && one.protocol === other.protocol;
}
