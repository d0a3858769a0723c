import type { buildConnector } from 'undici';
import { ClosedError } from '../errors.ts';
import { decided } from '../internal/decision.ts';
import { Emitter } from '../internal/emitter.ts';
import { CONNECT_OPTIONS, checkExternalOptions } from '../internal/external-options.ts';
import { type Labels, OBSERVE, type Observation, observePart } from '../internal/observation.ts';
import { shown } from '../internal/shown.ts';
import {
  anObject,
  type Check,
  either,
  hasMethods,
  integer,
  isFunction,
  MAX_DELAY,
  nonEmptyString,
  number,
  requireOption,
  validateOptions,
} from '../internal/validate.ts';
import { Bulkhead } from '../policies/bulkhead.ts';
import { type HealthChange, HealthChecks } from './health-checks.ts';
import { createHttpProbe } from './health-probe.ts';
import type { LockService } from './lock-service.ts';
import { LockedTask, type Task } from './locked-task.ts';
import type { ServiceDiscovery } from './service-discovery.ts';
import { isName, urlOn } from './service-instance.ts';

export interface HealthCheckerOptions {
  /** The discovery that tells the instances, and to which their status is written. */
  discovery: ServiceDiscovery;
  /** The names of the services whose instances are checked. */
  services: readonly string[];
  /**
   * The path that a check requests with GET where an instance has no `healthCheckUrl`. Default
   * '/health'.
   */
  path?: string | undefined;
  /**
   * The status of a response that passes: one, several, or a function that tells at once. Default
   * 200 to 299.
   */
  expectedStatus?: number | readonly number[] | ((status: number) => boolean) | undefined;
  /** Milliseconds for a check, from the connection to the end of the response. Default 2,000. */
  timeout?: number | undefined;
  /**
   * The most milliseconds between two checks of an instance; each wait is up to 15 % shorter at
   * random. Default 10,000.
   */
  interval?: number | undefined;
  /** Checks in a row that an unhealthy instance must pass to be healthy. Default 2. */
  rise?: number | undefined;
  /** Checks in a row that a healthy instance must fail to be unhealthy. Default 3. */
  fall?: number | undefined;
  /**
   * The most checks under way at once; others wait for their turn. Default 50. Many instances that
   * do not respond at all are checked less often for that reason: 50 checks at once with a timeout
   * of 2 seconds are 25 a second.
   */
  maxConcurrent?: number | undefined;
  /**
   * Shares the work among checkers: the checker that has the lock of a service checks it, and
   * another checker takes over within four intervals of its death. While the lock service does not
   * respond each checker checks by itself. Leave the option out where each process keeps the status
   * for itself, as over static lists and DNS. Default: the checker always checks.
   */
  locks?: LockService | undefined;
  /** How connections are made: TLS, or a function, as `connection.connect` of a ServiceClient. */
  connect?: buildConnector.BuildOptions | buildConnector.connector | undefined;
}

export interface HealthCheckerEvents {
  /** The checker has written to the discovery that an instance is healthy. */
  healthy: [change: HealthChange];
  /** The checker has written to the discovery that an instance is unhealthy. */
  unhealthy: [change: HealthChange];
  /**
   * The discovery, the lock service or `expectedStatus` failed, or a check was ignored because it
   * ran out of time while this process was blocked. The checks go on, and a status that could not
   * be written is written later.
   */
  failure: [event: { error: unknown }];
}

/** An address on which the option `path` is checked. */
const ANY_ADDRESS = { protocol: 'http', host: 'localhost', port: 80 } as const;

const checkPath: Check = (value, option) => {
  nonEmptyString(value, option);
  const path = value as string;
  if (!path.startsWith('/') || urlOn(ANY_ADDRESS, path) === undefined) {
    throw new TypeError(`${option} must be a path such as '/health'; got ${shown(path)}`);
  }
};

const connectOptions: Check = (value, option) => {
  either('an object of options or a function', anObject, isFunction)(value, option);
  if (typeof value === 'object') checkExternalOptions(value, option, CONNECT_OPTIONS);
};

/** A name that no registry can have could never have an instance. */
const serviceName: Check = (value, option) => {
  nonEmptyString(value, option);
  if (!isName(value)) throw new TypeError(`${option} must be names of services; got ${shown(value)}`);
};

const status = integer(100, 599);

/** Passes a list of at least one value, each of which passes the check. */
function nonEmptyListOf(check: Check): Check {
  return (value, option) => {
    if (!Array.isArray(value) || value.length === 0)
      throw new TypeError(`${option} must be a list, not empty`);
    for (const item of value) check(item, option);
  };
}

/**
 * Checks the instances of some services by HTTP, again and again, and writes their status to the
 * discovery: `fall` failed checks in a row make an instance unhealthy, `rise` passed checks make it
 * healthy again. Nothing but the status is written, and only where the discovery shows another
 * status, as when it forgot the status or was given another one. The status belongs to the checker:
 * give a well instance that should get no calls the weight 0.
 *
 * A check goes to the instance's own `healthCheckUrl`, or to `path`; it never goes to another host
 * or port than the instance is registered with, and follows no redirects. The checks are spread
 * over the interval. The checker does not hold the process open.
 *
 * @example
 * const checker = new HealthChecker({ discovery, services: ['user-service'], locks });
 * checker.on('unhealthy', ({ instance, reason }) => log(`${instance.instanceId} is unhealthy: ${reason}`));
 * checker.start();
 * // …
 * await checker.close();
 */
export class HealthChecker extends Emitter<HealthCheckerEvents> {
  readonly #services: ReadonlySet<string>;
  readonly #discovery: ServiceDiscovery;
  readonly #startTask: (serviceName: string) => Task;
  #tasks: Task[] | undefined = undefined;
  #closing: Promise<void> | undefined = undefined;

  constructor(options: HealthCheckerOptions) {
    super('health-checker');
    const table = {
      discovery: hasMethods('instances', 'watch', 'update'),
      services: nonEmptyListOf(serviceName),
      path: checkPath,
      expectedStatus: either(
        'a status from 100 to 599, a list of them, or a function',
        status,
        nonEmptyListOf(status),
        isFunction,
      ),
      timeout: number(1, MAX_DELAY),
      interval: number(1, MAX_DELAY),
      rise: integer(1),
      fall: integer(1),
      maxConcurrent: integer(1),
      locks: hasMethods('acquire', 'release'),
      connect: connectOptions,
    };
    validateOptions('HealthChecker', options, table, { leases: 'locks' });
    requireOption('HealthChecker', options, 'discovery');
    requireOption('HealthChecker', options, 'services');
    this.#services = new Set(options.services);
    this.#discovery = options.discovery;
    this.#startTask = this.#createTaskStarter(options);
  }

  /** Begins to check. A second call does nothing. */
  start(): void {
    if (this.#closing !== undefined) throw new ClosedError('the HealthChecker');
    this.#tasks ??= Array.from(this.#services, this.#startTask);
  }

  /**
   * Cancels the checks under way, waits for the statuses that are being written, and frees the
   * locks, within 10 seconds. A failure meanwhile is a `failure` event.
   */
  close(): Promise<void> {
    this.#closing ??= Promise.all((this.#tasks ?? []).map((task) => task.stop())).then(() => {});
    return this.#closing;
  }

  /** @internal */
  override [OBSERVE](observation: Observation, labels: Labels): void {
    super[OBSERVE](observation, labels);
    observePart(this.#discovery, observation, labels);
  }

  /** Creates a function that starts the checks of a service. */
  #createTaskStarter(options: HealthCheckerOptions): (serviceName: string) => Task {
    const { discovery, path = '/health', timeout = 2_000, interval = 10_000, connect = {}, locks } = options;
    const { rise = 2, fall = 3, maxConcurrent = 50 } = options;
    const onFailure = (error: unknown) => void this.emit('failure', { error });
    const shared = {
      discovery,
      interval,
      rise,
      fall,
      onFailure,
      probe: createHttpProbe({
        path,
        isExpected: toStatusPredicate(options.expectedStatus),
        timeout,
        connect,
      }),
      bulkhead: new Bulkhead({ maxConcurrent, maxQueue: Number.MAX_SAFE_INTEGER }),
      onChange: (change: HealthChange) =>
        void this.emit(change.instance.status === 'healthy' ? 'healthy' : 'unhealthy', change),
    };
    return (serviceName) => {
      const start = (mayReport: () => boolean) => new HealthChecks({ ...shared, serviceName, mayReport });
      if (locks === undefined) return start(() => true);
      return new LockedTask({ locks, name: `health-check:${serviceName}`, interval, start, onFailure });
    };
  }
}

function toStatusPredicate(
  expected: HealthCheckerOptions['expectedStatus'] = (status) => status >= 200 && status < 300,
): (status: number) => boolean {
  if (typeof expected === 'function') {
    return (status) => decided(expected(status), "HealthChecker option 'expectedStatus'");
  }
  const statuses = new Set(typeof expected === 'number' ? [expected] : expected);
  return (status) => statuses.has(status);
}
