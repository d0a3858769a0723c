import { InstanceReplacedError } from '../errors.ts';
import type { Registration, ServiceRegistry } from './service-registry.ts';

/** An instance of this process. */
interface LocalInstance {
  readonly serviceName: string;
  readonly instanceId: string;
  /** The desired registration as JSON; undefined if the instance leaves. */
  desired: string | undefined;
  /** The epoch of its registration; undefined while it is not registered. */
  epoch: string | undefined;
  /** `performance.now()` when it was last kept alive. */
  aliveAt: number;
  replaced: boolean;
  /** The error of the last heartbeat; undefined if it succeeded. */
  error: unknown;
  /** The last of the commands that Redis is being sent for it. */
  pending: Promise<unknown> | undefined;
}

/** An instance that is registered, and is kept alive. */
interface ActiveInstance extends LocalInstance {
  desired: string;
  epoch: string;
}

/**
 * Keeps the instances that this process has registered alive together: a heartbeat of one is a
 * heartbeat of all, and also serves heartbeats that follow soon. An instance that Redis has
 * forgotten is registered again at once.
 */
export class Heartbeats {
  readonly #registry: ServiceRegistry;
  readonly #ttl: number;
  readonly #onForgotten: (registration: Registration) => void;
  readonly #instances = new Map<string, LocalInstance>();
  #beating: Promise<void> | undefined = undefined;

  /** @param ttl milliseconds. */
  constructor(registry: ServiceRegistry, ttl: number, onForgotten: (registration: Registration) => void) {
    this.#registry = registry;
    this.#ttl = ttl;
    this.#onForgotten = onForgotten;
  }

  /**
   * Gives the registration of an instance as JSON, with the change that is being written. Gives
   * undefined if the instance is not of this process, or leaves.
   */
  encodedRegistration(serviceName: string, instanceId: string): string | undefined {
    const local = this.#instances.get(keyOf(serviceName, instanceId));
    return local?.epoch === undefined ? undefined : local.desired;
  }

  /**
   * Registers an instance, or changes its registration. If a change fails, the instance is kept
   * alive as it was, and is registered with the change should Redis forget it.
   *
   * @throws InstanceReplacedError if this process registered the instance before, and a later
   * process since.
   */
  register(serviceName: string, instanceId: string, json: string): Promise<void> {
    const local = this.#findOrAdd(serviceName, instanceId);
    local.desired = json;
    return this.#enqueue(local, async () => {
      if (!(await this.#write(local, json))) throw new InstanceReplacedError(serviceName, instanceId);
    });
  }

  /**
   * Keeps an instance alive. Gives false if it is not of this process, or leaves.
   *
   * @throws InstanceReplacedError if a later process has registered it since; else the error that
   * kept it from being kept alive.
   */
  async heartbeat(serviceName: string, instanceId: string): Promise<boolean> {
    const local = this.#instances.get(keyOf(serviceName, instanceId));
    if (local === undefined) return false;
    // With the usual heartbeat every third of the ttl, that makes at most two commands in that
    // time.
    const due = local.error !== undefined || performance.now() - local.aliveAt >= this.#ttl / 6;
    if (due && isActive(local)) await this.beatAll();
    if (local.epoch === undefined || local.desired === undefined) return false;
    if (local.replaced) throw new InstanceReplacedError(serviceName, instanceId);
    if (local.error !== undefined) throw local.error;
    return true;
  }

  /** Keeps all instances alive. The next heartbeat of each tells its result. */
  beatAll(): Promise<void> {
    this.#beating ??= this.#beatAll().finally(() => {
      this.#beating = undefined;
    });
    return this.#beating;
  }

  /**
   * Deregisters an instance. From now on it is not kept alive any more, even if Redis cannot be
   * reached.
   */
  deregister(serviceName: string, instanceId: string): Promise<boolean> {
    const local = this.#findOrAdd(serviceName, instanceId);
    local.desired = undefined;
    return this.#enqueue(local, async () => {
      const known = await this.#registry.deregister(serviceName, instanceId, local.epoch);
      local.epoch = undefined;
      return known;
    });
  }

  async #beatAll(): Promise<void> {
    const active = [...this.#instances.values()].filter(isActive);
    if (active.length === 0) return;
    const now = performance.now();
    const registrations = active.map((local) => this.#registrationOf(local));
    const results = await this.#registry.heartbeat(registrations);
    await Promise.all(
      active.map(async (local, index) => {
        const { epoch } = registrations[index]!;
        if (local.epoch !== epoch) return;
        const result = results[index];
        local.error = result instanceof Error ? result : undefined;
        if (result === 'alive') local.aliveAt = now;
        else if (result === 'replaced') local.replaced = true;
        else if (result === 'unknown') await this.#enqueue(local, () => this.#registerAgain(local, epoch));
      }),
    );
  }

  async #registerAgain(local: LocalInstance, epoch: string): Promise<void> {
    // The instance may have left since the heartbeat was sent, or started anew.
    if (!isActive(local) || local.epoch !== epoch) return;
    const registration = this.#registrationOf(local);
    try {
      if (await this.#write(local, registration.json)) this.#onForgotten(registration);
    } catch (error) {
      local.error = error;
    }
  }

  /** Writes the registration to Redis. Gives false if the instance was replaced. */
  async #write(local: LocalInstance, json: string): Promise<boolean> {
    const now = performance.now();
    const { serviceName, instanceId, epoch: before } = local;
    const registration = { serviceName, instanceId, ttl: this.#ttl, json, epoch: before };
    const epoch = await this.#registry.register(registration);
    local.replaced = epoch === undefined;
    if (epoch === undefined) return false;
    local.epoch = epoch;
    local.aliveAt = now;
    return true;
  }

  #registrationOf({ serviceName, instanceId, epoch, desired }: ActiveInstance): Registration {
    return { serviceName, instanceId, epoch, ttl: this.#ttl, json: desired };
  }

  #findOrAdd(serviceName: string, instanceId: string): LocalInstance {
    const key = keyOf(serviceName, instanceId);
    const local = this.#instances.get(key) ?? {
      serviceName,
      instanceId,
      desired: undefined,
      epoch: undefined,
      aliveAt: 0,
      replaced: false,
      error: undefined,
      pending: undefined,
    };
    this.#instances.set(key, local);
    return local;
  }

  /**
   * Runs the commands of one instance one after the other, so that the last desired registration is
   * what remains.
   */
  async #enqueue<T>(local: LocalInstance, command: () => Promise<T>): Promise<T> {
    const turn = local.pending === undefined ? command() : local.pending.then(command, command);
    local.pending = turn;
    try {
      return await turn;
    } finally {
      if (local.pending === turn) {
        local.pending = undefined;
        if (local.epoch === undefined) this.#instances.delete(keyOf(local.serviceName, local.instanceId));
      }
    }
  }
}

function isActive(local: LocalInstance): local is ActiveInstance {
  return local.epoch !== undefined && local.desired !== undefined && !local.replaced;
}

function keyOf(serviceName: string, instanceId: string): string {
  return `${serviceName} ${instanceId}`;
}
