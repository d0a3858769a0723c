import { randomUUID } from 'node:crypto';
import {
  ClosedError,
  DiscoveryUnavailableError,
  InstanceReplacedError,
  InvalidInstanceError,
  RedisError,
} from '../errors.ts';
import { Emitter } from '../internal/emitter.ts';
import {
  anObject,
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

export interface RegisterOptions {
  /** Milliseconds after which `register()` rejects, if the instance is not registered by then. Default 5,000. */
  timeout?: number;
}

export interface ServiceRegistrarEvents {
  /** The instance has become registered: the first time, or again after it was forgotten. */
  registered: [event: { instance: ServiceInstance }];
  /** It found itself forgotten, as after a restart of the registry, and is registered again. */
  're-registered': [instance: ServiceInstance];
  /** Another process has registered under the id of the instance since. This one stops, and leaves it that place. */
  replaced: [error: InstanceReplacedError];
  /**
   * A registration, a heartbeat or the deregistration failed. Registrations that may succeed later and heartbeats go
   * on, at first soon, then at their usual pace.
   */
  failure: [error: unknown];
}

/** Milliseconds after which a failed registration or heartbeat is repeated at first; twice as long each time after. */
const FIRST_RETRY = 1_000;
const DEFAULT_TIMEOUT = 5_000;
/** Milliseconds that `close()` waits for the discovery. */
const PATIENCE = 5_000;

/** The registrars that are deregistering because of a signal: the process is not ended before they are done. */
let leaving: Promise<unknown> = Promise.resolve();
/** The registrars that leave when a signal arrives. */
const listening = new Map<NodeJS.Signals, Set<ServiceRegistrar>>();

/** However many registrars there are, the process has one listener for each signal. */
function listenFor(signal: NodeJS.Signals, registrar: ServiceRegistrar): void {
  const registrars = listening.get(signal) ?? new Set();
  if (!process.listeners(signal).includes(leave)) process.once(signal, leave);
  listening.set(signal, registrars.add(registrar));
}

function stopListening(signal: NodeJS.Signals, registrar: ServiceRegistrar): void {
  const registrars = listening.get(signal);
  if (registrars?.delete(registrar) && registrars.size === 0) process.off(signal, leave);
}

/**
 * Deregisters all of them. Whoever else listens decides what the signal does; with nobody else it ends the process, as it
 * would have.
 */
function leave(signal: NodeJS.Signals): void {
  const alone = process.listenerCount(signal) === 0;
  const registrars = [...(listening.get(signal) ?? [])];
  listening.delete(signal);
  leaving = Promise.all([leaving, ...registrars.map((registrar) => registrar.close())]);
  if (alone) void leaving.then(() => process.kill(process.pid, signal));
}

/**
 * Keeps one instance registered: registers it, if need be as soon as the discovery can be reached, sends heartbeats,
 * registers it again when it was forgotten, and deregisters it on close. It does not hold the process open.
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
  /** Until it is registered, however often that is attempted. */
  #registering: Promise<ServiceInstance> | undefined = undefined;
  /** The last attempt to register. */
  #attempt: Promise<ServiceInstance> | undefined = undefined;
  /** Why the last attempt failed. */
  #lastError: unknown = undefined;
  /** Whether a caller was told that the registrar goes on. */
  #promised = false;
  #endPause: () => void = () => {};
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
      instance: anObject,
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

  /**
   * Registers, and begins to send heartbeats. Called again it gives the same registration, or waits for the one that is
   * under way.
   *
   * While the discovery cannot be reached, or takes no registrations for now, it repeats the attempt after 1, 2, 4…
   * seconds, at most the interval of the heartbeats. It goes on with that after the `timeout`, until it is closed; the
   * event `registered` then tells.
   *
   * @throws DiscoveryUnavailableError after the timeout, with the last failure as its cause. At once, and without any
   * further attempt: InvalidInstanceError; InstanceReplacedError; RedisError if Redis denies this client access;
   * ClosedError if the registrar or the discovery is closed.
   */
  async register(options: RegisterOptions = {}): Promise<ServiceInstance> {
    validateOptions('register()', options, { timeout: number(1, MAX_DELAY) });
    if (this.#closing !== undefined) throw new ClosedError('the ServiceRegistrar');
    this.#registering ??= this.#registerAtLast();
    return this.#within(options.timeout ?? DEFAULT_TIMEOUT, this.#registering);
  }

  /**
   * Changes the weight, the metadata (as a whole) or the status of the instance, and keeps them whenever it
   * registers. False if the instance is not registered at the moment, or another process has its place.
   *
   * @throws InvalidInstanceError if a value is not what it must be.
   */
  async update(changes: InstanceChanges): Promise<boolean> {
    // What is being registered just now is what there was before the changes.
    await Promise.allSettled([this.#attempt, this.#beating]);
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

  /** The timer holds the process open for as long as the caller waits; the registrar does not. */
  #within(timeout: number, registering: Promise<ServiceInstance>): Promise<ServiceInstance> {
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        this.#promised = true;
        reject(this.#timeoutError(timeout));
      }, timeout);
      registering.then(
        (instance) => {
          clearTimeout(timer);
          resolve(instance);
        },
        (error) => {
          clearTimeout(timer);
          reject(error);
        },
      );
    });
  }

  #timeoutError(timeout: number): DiscoveryUnavailableError {
    const { serviceName, instanceId } = this.#registration;
    const cause = this.#lastError;
    const reason = cause === undefined ? 'the discovery did not answer' : messageOf(cause);
    return new DiscoveryUnavailableError(
      `'${instanceId}' of '${serviceName}' could not be registered within ${timeout} ms, which goes on in the background: ${reason}`,
      cause === undefined ? undefined : { cause },
    );
  }

  /** Repeats what fails until it succeeds, cannot succeed, or the registrar is closed. */
  async #registerAtLast(): Promise<ServiceInstance> {
    if (this.#signal) listenFor(this.#signal, this);
    try {
      for (let failures = 0; ; failures++) {
        try {
          this.#attempt = this.#register();
          return await this.#attempt;
        } catch (error) {
          this.#lastError = error;
          this.emit('failure', error);
          if (this.#closing !== undefined || this.#isFinal(error)) throw error;
        }
        await this.#pause(Math.min(this.#interval, FIRST_RETRY * 2 ** failures));
        if (this.#closing !== undefined) throw new ClosedError('the ServiceRegistrar');
      }
    } catch (error) {
      this.#registering = undefined;
      if (this.#signal) stopListening(this.#signal, this);
      throw error;
    } finally {
      this.#lastError = undefined;
      this.#promised = false;
    }
  }

  async #register(): Promise<ServiceInstance> {
    const instance = await this.#discovery.register(this.#registration);
    this.#instance = instance;
    this.#registration = { ...this.#registration, registeredAt: instance.registeredAt };
    if (this.#closing === undefined) {
      this.#beatAfter(this.#interval);
      this.emit('registered', { instance });
    }
    return instance;
  }

  /** Whether it makes no sense to repeat the attempt. A caller who waits had better know of a wrong password at once. */
  #isFinal(error: unknown): boolean {
    if (error instanceof RedisError) return error.denied && !this.#promised;
    return (
      error instanceof InvalidInstanceError ||
      error instanceof InstanceReplacedError ||
      error instanceof ClosedError
    );
  }

  async #pause(wait: number): Promise<void> {
    if (this.#closing !== undefined) return;
    await new Promise<void>((resolve) => {
      this.#endPause = resolve;
      this.#timer = setTimeout(resolve, jittered(wait)).unref();
    });
  }

  #beatAfter(wait: number): void {
    this.#timer = setTimeout(() => {
      this.#beating = this.#beat();
    }, jittered(wait)).unref();
  }

  async #beat(): Promise<void> {
    const { serviceName, instanceId } = this.#instance!;
    try {
      const known = await this.#discovery.heartbeat(serviceName, instanceId);
      if (!known && this.#closing === undefined) {
        this.#instance = await this.#discovery.register(this.#registration);
        this.emit('re-registered', this.#instance);
        this.emit('registered', { instance: this.#instance });
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
    this.#endPause();
    if (this.#signal) stopListening(this.#signal, this);
    try {
      await this.#patience.execute(() => this.#deregister());
    } catch (error) {
      this.emit('failure', error);
    }
  }

  async #deregister(): Promise<void> {
    // Why it failed, whoever waits for it was told.
    await this.#registering?.catch(() => {});
    await this.#beating;
    if (this.#instance !== undefined && !this.#replaced) {
      await this.#discovery.deregister(this.#instance.serviceName, this.#instance.instanceId);
    }
  }
}

function jittered(wait: number): number {
  return wait * (1 - 0.15 * Math.random());
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
