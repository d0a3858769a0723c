import { randomUUID } from 'node:crypto';
import { ClosedError, InstanceReplacedError } from '../errors.ts';
import { Emitter } from '../internal/emitter.ts';
import {
  anything,
  either,
  having,
  MAX_DELAY,
  number,
  oneOf,
  requireOption,
  validateOptions,
} from '../internal/validate.ts';
import { Timeout } from '../policies/timeout.ts';
import type { ServiceDiscovery } from './service-discovery.ts';
import {
  type InstanceChanges,
  type InstanceRegistration,
  type ServiceInstance,
  toInstance,
  withChanges,
} from './service-instance.ts';

export interface ServiceRegistrarOptions {
  discovery: ServiceDiscovery;
  /** What to register. Without an `instanceId` it gets one, the same each time it registers again. */
  instance: InstanceRegistration;
  /** Milliseconds between heartbeats, at most; each wait is up to 15 % shorter at random. Default 30,000. */
  heartbeatInterval?: number;
  /** Deregister when this signal arrives, then let it do what it would have done. Default: none. */
  deregisterOn?: NodeJS.Signals | false;
}

export interface ServiceRegistrarEvents {
  /** It found itself forgotten, as after a restart of the registry, and is registered again. */
  're-registered': [instance: ServiceInstance];
  /** Another process has registered under the id of the instance since. This one stops, and leaves it that place. */
  replaced: [error: InstanceReplacedError];
  /** A heartbeat or the deregistration failed. Heartbeats go on, at first soon, then at their usual pace. */
  failure: [error: unknown];
}

/** Milliseconds after which a failed heartbeat is tried again at first; twice as long each time after. */
const FIRST_RETRY = 1_000;
/** Milliseconds that `close()` waits for the discovery. */
const PATIENCE = 5_000;

/** The registrars that are deregistering because of a signal: the process is not ended before they are done. */
let leaving: Promise<unknown> = Promise.resolve();

/**
 * Keeps one instance registered: registers it, sends heartbeats, registers it again when it was forgotten,
 * and deregisters it on close. It does not hold the process open.
 *
 * @example
 * const registrar = new ServiceRegistrar({ discovery, instance: { serviceName: 'user-service', host, port } });
 * await registrar.register();
 * // …
 * await registrar.close();
 */
export class ServiceRegistrar extends Emitter<ServiceRegistrarEvents> {
  readonly #discovery: ServiceDiscovery;
  readonly #interval: number;
  readonly #signal: NodeJS.Signals | false;
  readonly #patience = new Timeout(PATIENCE);
  #registration: InstanceRegistration;
  #registering: Promise<ServiceInstance> | undefined = undefined;
  #instance: ServiceInstance | undefined = undefined;
  #beating: Promise<void> | undefined = undefined;
  #timer: NodeJS.Timeout | undefined = undefined;
  #failures = 0;
  #replaced = false;
  #closing: Promise<void> | undefined = undefined;

  constructor(options: ServiceRegistrarOptions) {
    super('service-registrar');
    validateOptions('ServiceRegistrar', options, {
      discovery: having('register', 'heartbeat', 'deregister'),
      instance: anything,
      heartbeatInterval: number(1, MAX_DELAY),
      deregisterOn: either(
        "a signal such as 'SIGTERM', or false",
        oneOf('SIGTERM', 'SIGINT', 'SIGHUP', 'SIGQUIT', false),
      ),
    });
    requireOption('ServiceRegistrar', options, 'discovery');
    requireOption('ServiceRegistrar', options, 'instance');
    this.#discovery = options.discovery;
    this.#registration = {
      ...options.instance,
      instanceId: options.instance.instanceId ?? randomUUID(),
    };
    this.#interval = options.heartbeatInterval ?? 30_000;
    this.#signal = options.deregisterOn ?? false;
  }

  /** The instance as it is registered; undefined before. */
  get instance(): ServiceInstance | undefined {
    return this.#instance;
  }

  /** Registers and begins to send heartbeats. Called again it gives the same registration; after a failure it tries anew. */
  register(): Promise<ServiceInstance> {
    if (this.#closing !== undefined) return Promise.reject(new ClosedError('the ServiceRegistrar'));
    this.#registering ??= this.#register().catch((error) => {
      this.#registering = undefined;
      throw error;
    });
    return this.#registering;
  }

  /**
   * Changes the weight, the metadata (as a whole) or the status of the instance, and keeps them whenever it
   * registers. False if the instance is not registered at the moment, or another process has its place.
   *
   * @throws InvalidInstanceError if a value is not what it must be.
   */
  async update(changes: InstanceChanges): Promise<boolean> {
    // What is being registered just now is what there was before the changes.
    await Promise.allSettled([this.#registering, this.#beating]);
    if (this.#closing !== undefined) throw new ClosedError('the ServiceRegistrar');
    const changed = withChanges(this.#instance ?? toInstance(this.#registration), changes);
    const { weight, metadata, status, serviceName, instanceId } = changed;
    this.#registration = { ...this.#registration, weight, metadata, status };
    if (this.#instance === undefined || this.#replaced) return false;
    this.#instance = changed;
    return this.#discovery.update(serviceName, instanceId, changes);
  }

  /**
   * Stops the heartbeats, waits for one under way, and deregisters; it takes at most 5 seconds. What fails then is
   * a `failure` event.
   */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #register(): Promise<ServiceInstance> {
    const instance = await this.#discovery.register(this.#registration);
    this.#instance = instance;
    this.#registration = { ...this.#registration, registeredAt: instance.registeredAt };
    if (this.#closing === undefined) {
      if (this.#signal) process.once(this.#signal, this.#onSignal);
      this.#beatAfter(this.#interval);
    }
    return instance;
  }

  #beatAfter(wait: number): void {
    const jittered = wait * (1 - 0.15 * Math.random());
    this.#timer = setTimeout(() => {
      this.#beating = this.#beat();
    }, jittered).unref();
  }

  async #beat(): Promise<void> {
    const { serviceName, instanceId } = this.#instance!;
    try {
      const known = await this.#discovery.heartbeat(serviceName, instanceId);
      if (!known && this.#closing === undefined) {
        this.#instance = await this.#discovery.register(this.#registration);
        this.emit('re-registered', this.#instance);
      }
      this.#failures = 0;
    } catch (error) {
      if (error instanceof InstanceReplacedError) {
        this.#replaced = true;
        this.emit('replaced', error);
        return;
      }
      this.#failures++;
      this.emit('failure', error);
    }
    if (this.#closing === undefined) {
      const soon = FIRST_RETRY * 2 ** (this.#failures - 1);
      this.#beatAfter(this.#failures === 0 ? this.#interval : Math.min(this.#interval, soon));
    }
  }

  async #close(): Promise<void> {
    clearTimeout(this.#timer);
    if (this.#signal) process.off(this.#signal, this.#onSignal);
    try {
      await this.#patience.execute(() => this.#deregister());
    } catch (error) {
      this.emit('failure', error);
    }
  }

  async #deregister(): Promise<void> {
    await this.#registering;
    await this.#beating;
    if (this.#instance !== undefined && !this.#replaced) {
      await this.#discovery.deregister(this.#instance.serviceName, this.#instance.instanceId);
    }
  }

  /** Whoever else listens decides what the signal does; with nobody else it ends the process, as it would have. */
  readonly #onSignal = (signal: NodeJS.Signals) => {
    const alone = process.listenerCount(signal) === 0;
    leaving = Promise.all([leaving, this.close()]);
    if (alone) void leaving.then(() => process.kill(process.pid, signal));
  };
}
