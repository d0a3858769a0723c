import { InstanceReplacedError } from '../errors.ts';
import type { Registration, ServiceRegistry } from './service-registry.ts';

/** An instance that this process has registered. */
interface Own {
  registration: Registration;
  /** `performance.now()` when it was last kept alive. */
  aliveAt: number;
  replaced: boolean;
  leaving: boolean;
  /** Why it could not be kept alive the last time. */
  error: unknown;
}

/**
 * The instances that this process has registered. They are kept alive together: a heartbeat of one is a heartbeat of
 * all, and answers those that follow it soon. One that Redis has forgotten is registered again at once.
 */
export class Heartbeats {
  readonly #registry: ServiceRegistry;
  readonly #onForgotten: (registration: Registration) => void;
  readonly #ttl: number;
  readonly #own = new Map<string, Own>();
  #beating: Promise<void> | undefined = undefined;

  /** @param ttl milliseconds. */
  constructor(registry: ServiceRegistry, ttl: number, onForgotten: (registration: Registration) => void) {
    this.#registry = registry;
    this.#ttl = ttl;
    this.#onForgotten = onForgotten;
  }

  /** What is registered as JSON; undefined if it is not of this process. */
  jsonOf(serviceName: string, instanceId: string): string | undefined {
    return this.#own.get(keyOf(serviceName, instanceId))?.registration.json;
  }

  /** @throws InstanceReplacedError if it was registered here before, and by a later process since. */
  async register(serviceName: string, instanceId: string, json: string): Promise<void> {
    const before = this.#own.get(keyOf(serviceName, instanceId));
    const epoch = before?.registration.epoch;
    const registration = { serviceName, instanceId, ttl: this.#ttl, json };
    const given = await this.#registry.register({ ...registration, epoch });
    if (given === undefined) {
      before!.replaced = true;
      throw new InstanceReplacedError(serviceName, instanceId);
    }
    this.#own.set(keyOf(serviceName, instanceId), {
      registration: { ...registration, epoch: given },
      aliveAt: performance.now(),
      replaced: false,
      leaving: false,
      error: undefined,
    });
  }

  /** False if it is not of this process. */
  async heartbeat(serviceName: string, instanceId: string): Promise<boolean> {
    const key = keyOf(serviceName, instanceId);
    const own = this.#own.get(key);
    if (own === undefined || own.leaving) return false;
    // With a heartbeat every third of the ttl, as is usual, that makes two commands in that time at most.
    if (performance.now() - own.aliveAt >= this.#ttl / 6) await this.beat();
    const now = this.#own.get(key);
    if (now === undefined || now.leaving) return false;
    if (now.replaced) throw new InstanceReplacedError(serviceName, instanceId);
    if (now.error !== undefined) throw now.error;
    return true;
  }

  /** Keeps all of them alive; what becomes of each is told by its next heartbeat. */
  beat(): Promise<void> {
    this.#beating ??= this.#beat().finally(() => {
      this.#beating = undefined;
    });
    return this.#beating;
  }

  async deregister(serviceName: string, instanceId: string): Promise<boolean> {
    const key = keyOf(serviceName, instanceId);
    const own = this.#own.get(key);
    if (own !== undefined) own.leaving = true;
    const known = await this.#registry.deregister(serviceName, instanceId, own?.registration.epoch);
    if (this.#own.get(key) === own) this.#own.delete(key);
    return known;
  }

  async #beat(): Promise<void> {
    const beaten = [...this.#own.values()].filter(({ replaced, leaving }) => !replaced && !leaving);
    if (beaten.length === 0) return;
    const now = performance.now();
    const results = await this.#registry.heartbeat(beaten.map(({ registration }) => registration));
    await Promise.all(
      beaten.map(async (own, index) => {
        const result = results[index];
        own.error = result instanceof Error ? result : undefined;
        if (result === 'alive') own.aliveAt = now;
        else if (result === 'replaced') own.replaced = true;
        else if (result === 'unknown') await this.#registerAgain(own);
      }),
    );
  }

  async #registerAgain(own: Own): Promise<void> {
    const { registration } = own;
    // It may have been registered anew, or have left, since the heartbeat was sent.
    if (own.leaving || this.#own.get(keyOf(registration.serviceName, registration.instanceId)) !== own)
      return;
    try {
      const epoch = await this.#registry.register(registration);
      if (epoch === undefined) {
        own.replaced = true;
        return;
      }
      own.aliveAt = performance.now();
      this.#onForgotten(registration);
    } catch (error) {
      own.error = error;
    }
  }
}

function keyOf(serviceName: string, instanceId: string): string {
  return `${serviceName} ${instanceId}`;
}
