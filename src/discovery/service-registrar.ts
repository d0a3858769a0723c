import { randomUUID } from 'node:crypto';
import {
  ClosedError,
  DiscoveryUnavailableError,
  InstanceReplacedError,
  InvalidInstanceError,
  RedisError,
} from '../errors.ts';
import { rejectToFirstCaller } from '../internal/caller-frames.ts';
import { Emitter } from '../internal/emitter.ts';
import { jitter } from '../internal/jitter.ts';
import { type Labels, OBSERVE, type Observation, observePart } from '../internal/observation.ts';
import {
  anObject,
  either,
  hasMethods,
  MAX_DELAY,
  number,
  oneOf,
  requireOption,
  validateOptions,
} from '../internal/validate.ts';
import { exponentialBackoff } from '../policies/backoff.ts';
import { Timeout } from '../policies/timeout.ts';
import { deregistrationSignals } from './deregistration-signals.ts';
import type { ServiceDiscovery } from './service-discovery.ts';
import {
  type InstanceChanges,
  type InstanceRegistration,
  type ServiceInstance,
  toInstance,
  toRegisteredInstance,
  withChanges,
} from './service-instance.ts';

export interface ServiceRegistrarOptions {
  discovery: ServiceDiscovery;
  /**
   * The instance to register. Without an `instanceId` it gets one, the same each time it is
   * registered again.
   */
  instance: InstanceRegistration;
  /**
   * The most milliseconds between heartbeats, fewer than the discovery keeps an instance without one
   * (`ttl`); each wait is up to 15 % shorter at random. Default: a third of that `ttl`, 30,000 at most.
   */
  heartbeatInterval?: number | undefined;
  /**
   * The signal on which the instance is deregistered. Unless another listener of the signal is there,
   * which then decides, the process exits after that with 128 + the number of the signal, or at once on
   * a second signal. Default: none.
   */
  deregisterOn?: NodeJS.Signals | false | undefined;
}

export interface RegisterOptions {
  /**
   * Milliseconds after which `register()` rejects if the instance is not registered by then.
   * Default 5,000.
   */
  timeout?: number | undefined;
}

export interface ServiceRegistrarEvents {
  /** The instance has become registered: the first time, or again after it was forgotten. */
  registered: [event: { instance: ServiceInstance }];
  /** The registry had forgotten the instance, as after a restart; it is registered again. */
  're-registered': [event: { instance: ServiceInstance }];
  /** A heartbeat succeeded again, after this number of failures in a row. */
  recovered: [event: { instance: ServiceInstance; failures: number }];
  /**
   * Another process has registered under the id of the instance since. This registrar stops, and
   * leaves it the id.
   */
  replaced: [event: { error: InstanceReplacedError }];
  /**
   * A registration, a heartbeat or the deregistration failed. Heartbeats and registrations that may
   * succeed later are retried, at first soon, then at the usual interval.
   */
  failure: [event: { error: unknown }];
}

/**
 * Milliseconds after which a failed registration or heartbeat is first retried; twice as long
 * before each further retry.
 */
const FIRST_RETRY = 1_000;
const retryBackoff = exponentialBackoff({ base: FIRST_RETRY, max: MAX_DELAY, jitter: 'none' });
const DEFAULT_TIMEOUT = 5_000;
/** The most milliseconds between two heartbeats by default. */
const MAX_INTERVAL = 30_000;

/** Milliseconds that `close()` waits for the discovery. */
const CLOSE_TIMEOUT = 5_000;

/**
 * Keeps one instance registered: registers it, if necessary as soon as the discovery can be
 * reached, sends heartbeats, registers it again when the discovery has forgotten it, and
 * deregisters it on close. It does not hold the process open.
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
  readonly #closeTimeout = new Timeout(CLOSE_TIMEOUT);
  #registration: InstanceRegistration;
  /** Settles once the instance is registered, after however many attempts, or cannot be. */
  #registering: Promise<ServiceInstance> | undefined = undefined;
  /** The last attempt to register. */
  #attempt: Promise<ServiceInstance> | undefined = undefined;
  /** Why the last attempt failed. */
  #lastError: unknown = undefined;
  /** Whether a caller was told that the attempts go on in the background. */
  #inBackground = false;
  #endPause: () => void = () => {};
  #instance: ServiceInstance | undefined = undefined;
  #beating: Promise<void> | undefined = undefined;
  #timer: NodeJS.Timeout | undefined = undefined;
  #failures = 0;
  #replaced = false;
  #closing: Promise<void> | undefined = undefined;

  /**
   * @throws TypeError | RangeError naming the option that is not what it must be;
   * InvalidInstanceError naming the field of the instance that is not.
   */
  constructor(options: ServiceRegistrarOptions) {
    super('service-registrar');
    validateOptions('ServiceRegistrar', options, {
      discovery: hasMethods('register', 'heartbeat', 'deregister'),
      instance: anObject,
      heartbeatInterval: number(1, MAX_DELAY),
      deregisterOn: either(
        "a signal such as 'SIGTERM', or false",
        oneOf('SIGTERM', 'SIGINT', 'SIGHUP', 'SIGQUIT', false),
      ),
    });
    requireOption('ServiceRegistrar', options, 'discovery');
    requireOption('ServiceRegistrar', options, 'instance');
    toRegisteredInstance(options.instance);
    this.#discovery = options.discovery;
    this.#registration = {
      ...options.instance,
      instanceId: options.instance.instanceId ?? randomUUID(),
    };
    this.#interval = intervalOf(options);
    this.#signal = options.deregisterOn ?? false;
  }

  /** The registered instance; undefined before it is registered. */
  get instance(): ServiceInstance | undefined {
    return this.#instance;
  }

  /**
   * Registers the instance, and begins to send heartbeats. A second call gives the same
   * registration, or waits for the one that is under way.
   *
   * While the discovery cannot be reached, or takes no registrations for now, the attempt is
   * retried after 1, 2, 4… seconds, at most the interval of the heartbeats. The retries go on after
   * the `timeout`, until the registrar is closed; the event `registered` then tells of success.
   *
   * @throws DiscoveryUnavailableError after the timeout, or when the registrar is closed meanwhile, as
   * by a shutdown; its cause is the last failure. These errors are thrown at once, and end the attempts:
   * InvalidInstanceError; InstanceReplacedError; RedisError if Redis denies this client access;
   * ClosedError if the registrar was closed before, or the discovery is closed.
   */
  async register(options: RegisterOptions = {}): Promise<ServiceInstance> {
    validateOptions('register()', options, { timeout: number(1, MAX_DELAY) });
    if (this.#closing !== undefined) throw new ClosedError('the ServiceRegistrar');
    this.#registering ??= this.#registerWithRetries();
    return this.#waitFor(this.#registering, options.timeout ?? DEFAULT_TIMEOUT).catch(rejectToFirstCaller);
  }

  /**
   * Changes the weight, the metadata (as a whole) or the status of the instance, and keeps the
   * changes whenever it is registered again. Gives false if the instance is not registered at the
   * moment, or another process has its id.
   *
   * @throws InvalidInstanceError if a value is not what it must be.
   */
  async update(changes: InstanceChanges): Promise<boolean> {
    // A registration under way does not have the changes.
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
   * Stops the heartbeats, waits for one under way, and deregisters the instance, within 5 seconds.
   * A failure meanwhile is a `failure` event.
   */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  /** @internal */
  override [OBSERVE](observation: Observation, labels: Labels): void {
    const { serviceName, instanceId } = this.#registration;
    super[OBSERVE](observation, { ...labels, service: serviceName, instanceId: instanceId! });
    observePart(this.#discovery, observation, labels);
  }

  /**
   * Waits for the registration. The timer holds the process open for as long as the caller waits;
   * the registrar does not.
   */
  #waitFor(registering: Promise<ServiceInstance>, timeout: number): Promise<ServiceInstance> {
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        this.#inBackground = true;
        reject(this.#unavailableError(`within ${timeout} ms, which goes on in the background`));
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

  #unavailableError(bound: string): DiscoveryUnavailableError {
    const { serviceName, instanceId } = this.#registration;
    const cause = this.#lastError;
    const reason = cause === undefined ? 'the discovery did not respond' : errorMessage(cause);
    return new DiscoveryUnavailableError(
      `'${instanceId}' of '${serviceName}' could not be registered ${bound}: ${reason}`,
      cause === undefined ? undefined : { cause },
    );
  }

  /** Retries the registration until it succeeds, cannot succeed, or the registrar is closed. */
  async #registerWithRetries(): Promise<ServiceInstance> {
    if (this.#signal) deregistrationSignals.add(this.#signal, this);
    try {
      for (let failures = 0; ; failures++) {
        try {
          this.#attempt = this.#register();
          return await this.#attempt;
        } catch (error) {
          this.#lastError = error;
          this.emit('failure', { error });
          if (this.#isFinal(error)) throw error;
        }
        await this.#pause(Math.min(this.#interval, retryBackoff(failures + 1, 0)));
        if (this.#closing !== undefined) throw this.#unavailableError('before the registrar was closed');
      }
    } catch (error) {
      this.#registering = undefined;
      if (this.#signal) deregistrationSignals.remove(this.#signal, this);
      throw error;
    } finally {
      this.#lastError = undefined;
      this.#inBackground = false;
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

  /**
   * Tells whether a retry makes no sense. A caller that waits is told of a wrong password at once.
   */
  #isFinal(error: unknown): boolean {
    if (error instanceof RedisError) return error.denied && !this.#inBackground;
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
      this.#timer = setTimeout(resolve, jitter(wait, 1, 0.85)).unref();
    });
  }

  #beatAfter(wait: number): void {
    this.#timer = setTimeout(
      () => {
        this.#beating = this.#beat();
      },
      jitter(wait, 1, 0.85),
    ).unref();
  }

  async #beat(): Promise<void> {
    const { serviceName, instanceId } = this.#instance!;
    try {
      const known = await this.#discovery.heartbeat(serviceName, instanceId);
      if (!known && this.#closing === undefined) {
        this.#instance = await this.#discovery.register(this.#registration);
        this.emit('re-registered', { instance: this.#instance });
        this.emit('registered', { instance: this.#instance });
      }
      if (this.#failures > 0 && this.#closing === undefined) {
        this.emit('recovered', { instance: this.#instance!, failures: this.#failures });
      }
      this.#failures = 0;
    } catch (error) {
      if (error instanceof InstanceReplacedError) {
        this.#replaced = true;
        this.emit('replaced', { error });
        return;
      }
      this.#failures++;
      this.emit('failure', { error });
    }
    if (this.#closing === undefined) {
      const soon = retryBackoff(this.#failures, 0);
      this.#beatAfter(this.#failures === 0 ? this.#interval : Math.min(this.#interval, soon));
    }
  }

  async #close(): Promise<void> {
    clearTimeout(this.#timer);
    this.#endPause();
    if (this.#signal) deregistrationSignals.remove(this.#signal, this);
    try {
      await this.#closeTimeout.execute(() => this.#deregister());
    } catch (error) {
      this.emit('failure', { error });
    }
  }

  async #deregister(): Promise<void> {
    // The callers that wait for it are told why it failed.
    await this.#registering?.catch(() => {});
    await this.#beating;
    if (this.#instance !== undefined && !this.#replaced) {
      await this.#discovery.deregister(this.#instance.serviceName, this.#instance.instanceId);
    }
  }
}

/** @throws RangeError if the instance would be gone between two heartbeats */
function intervalOf({ heartbeatInterval, discovery }: ServiceRegistrarOptions): number {
  const { instanceTtl: ttl = Infinity } = discovery;
  const interval = heartbeatInterval ?? Math.min(MAX_INTERVAL, ttl / 3);
  if (interval < ttl) return interval;
  throw new RangeError(
    `ServiceRegistrar option 'heartbeatInterval' must be less than ${ttl}, the ttl of the discovery, or the ` +
      `instance is gone between two heartbeats; got ${interval}: leave it out for a third of the ttl`,
  );
}

function errorMessage(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
