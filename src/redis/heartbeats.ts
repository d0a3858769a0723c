import { InstanceReplacedError } from '../errors.ts';
import type { Registration, ServiceRegistry } from './service-registry.ts';

/** An instance of this process. */
interface Own {
  readonly serviceName: string;
  readonly instanceId: string;
  /** As it is to be registered, as JSON: undefined if it is to leave. */
  wanted: string | undefined;
  /** That of its registration: undefined if it is not registered. */
  epoch: string | undefined;
  /** `performance.now()` when it was last kept alive. */
  aliveAt: number;
  replaced: boolean;
  /** Why it could not be kept alive the last time. */
  error: unknown;
  /** The last of what Redis is being told of it. */
  telling: Promise<unknown> | undefined;
}

/** One that is registered, and to be kept alive. */
interface Kept extends Own {
  wanted: string;
  epoch: string;
}

/**
 * The instances that this process has registered. They are kept alive together: a heartbeat of one is a heartbeat of
 * all, and answers those that follow it soon. One that Redis has forgotten is registered again at once.
 */
export class Heartbeats {
  readonly #registry: ServiceRegistry;
  readonly #ttl: number;
  readonly #onForgotten: (registration: Registration) => void;
  readonly #own = new Map<string, Own>();
  #beating: Promise<void> | undefined = undefined;

  /** @param ttl milliseconds. */
  constructor(registry: ServiceRegistry, ttl: number, onForgotten: (registration: Registration) => void) {
    this.#registry = registry;
    this.#ttl = ttl;
    this.#onForgotten = onForgotten;
  }

  /** What is registered, or about to take its place, as JSON; undefined if it is not of this process, or leaves. */
  jsonOf(serviceName: string, instanceId: string): string | undefined {
    const own = this.#own.get(keyOf(serviceName, instanceId));
    return own?.epoch === undefined ? undefined : own.wanted;
  }

  /**
   * Registers it, or changes its registration. If a change fails, the instance is kept alive as it was, and
   * registered with the change should Redis forget it.
   *
   * @throws InstanceReplacedError if it was registered here before, and by a later process since.
   */
  register(serviceName: string, instanceId: string, json: string): Promise<void> {
    const own = this.#find(serviceName, instanceId);
    own.wanted = json;
    return this.#inTurn(own, async () => {
      if (!(await this.#tell(own, json))) throw new InstanceReplacedError(serviceName, instanceId);
    });
  }

  /**
   * False if it is not of this process, or leaves.
   *
   * @throws InstanceReplacedError if it was registered by a later process since; else whatever kept it from being
   * kept alive.
   */
  async heartbeat(serviceName: string, instanceId: string): Promise<boolean> {
    const own = this.#own.get(keyOf(serviceName, instanceId));
    if (own === undefined) return false;
    // With a heartbeat every third of the ttl, as is usual, that makes two commands in that time at most.
    const due = own.error !== undefined || performance.now() - own.aliveAt >= this.#ttl / 6;
    if (due && isKept(own)) await this.beat();
    if (own.epoch === undefined || own.wanted === undefined) return false;
    if (own.replaced) throw new InstanceReplacedError(serviceName, instanceId);
    if (own.error !== undefined) throw own.error;
    return true;
  }

  /** Keeps all of them alive; what becomes of each is told by its next heartbeat. */
  beat(): Promise<void> {
    this.#beating ??= this.#beat().finally(() => {
      this.#beating = undefined;
    });
    return this.#beating;
  }

  /** From now on it is not kept alive any more, even if Redis cannot be told. */
  deregister(serviceName: string, instanceId: string): Promise<boolean> {
    const own = this.#find(serviceName, instanceId);
    own.wanted = undefined;
    return this.#inTurn(own, async () => {
      const known = await this.#registry.deregister(serviceName, instanceId, own.epoch);
      own.epoch = undefined;
      return known;
    });
  }

  async #beat(): Promise<void> {
    const beaten = [...this.#own.values()].filter(isKept);
    if (beaten.length === 0) return;
    const now = performance.now();
    const registrations = beaten.map((own) => this.#registrationOf(own));
    const results = await this.#registry.heartbeat(registrations);
    await Promise.all(
      beaten.map(async (own, index) => {
        const { epoch } = registrations[index]!;
        if (own.epoch !== epoch) return;
        const result = results[index];
        own.error = result instanceof Error ? result : undefined;
        if (result === 'alive') own.aliveAt = now;
        else if (result === 'replaced') own.replaced = true;
        else if (result === 'unknown') await this.#inTurn(own, () => this.#registerAgain(own, epoch));
      }),
    );
  }

  async #registerAgain(own: Own, epoch: string): Promise<void> {
    // It may have left since the heartbeat was sent, or started anew.
    if (!isKept(own) || own.epoch !== epoch) return;
    const registration = this.#registrationOf(own);
    try {
      if (await this.#tell(own, registration.json)) this.#onForgotten(registration);
    } catch (error) {
      own.error = error;
    }
  }

  /** False if it was replaced. */
  async #tell(own: Own, json: string): Promise<boolean> {
    const now = performance.now();
    const { serviceName, instanceId, epoch: before } = own;
    const registration = { serviceName, instanceId, ttl: this.#ttl, json, epoch: before };
    const epoch = await this.#registry.register(registration);
    own.replaced = epoch === undefined;
    if (epoch === undefined) return false;
    own.epoch = epoch;
    own.aliveAt = now;
    return true;
  }

  #registrationOf({ serviceName, instanceId, epoch, wanted }: Kept): Registration {
    return { serviceName, instanceId, epoch, ttl: this.#ttl, json: wanted };
  }

  #find(serviceName: string, instanceId: string): Own {
    const key = keyOf(serviceName, instanceId);
    const found = this.#own.get(key) ?? {
      serviceName,
      instanceId,
      wanted: undefined,
      epoch: undefined,
      aliveAt: 0,
      replaced: false,
      error: undefined,
      telling: undefined,
    };
    this.#own.set(key, found);
    return found;
  }

  /** Of one instance Redis is told one thing after the other: what was wanted last is what remains. */
  async #inTurn<T>(own: Own, work: () => Promise<T>): Promise<T> {
    const turn = own.telling === undefined ? work() : own.telling.then(work, work);
    own.telling = turn;
    try {
      return await turn;
    } finally {
      if (own.telling === turn) {
        own.telling = undefined;
        if (own.epoch === undefined) this.#own.delete(keyOf(own.serviceName, own.instanceId));
      }
    }
  }
}

function isKept(own: Own): own is Kept {
  return own.epoch !== undefined && own.wanted !== undefined && !own.replaced;
}

function keyOf(serviceName: string, instanceId: string): string {
  return `${serviceName} ${instanceId}`;
}
