import type { buildConnector } from 'undici';
import { ClosedError } from '../errors.ts';
import { decided } from '../internal/decision.ts';
import { Emitter } from '../internal/emitter.ts';
import { CONNECT_OPTIONS, checkForeignOptions } from '../internal/foreign-options.ts';
import {
  anObject,
  type Check,
  either,
  func,
  having,
  integer,
  MAX_DELAY,
  number,
  requireOption,
  text,
  validateOptions,
} from '../internal/validate.ts';
import { Bulkhead } from '../policies/bulkhead.ts';
import { type HealthChange, HealthChecks } from './health-checks.ts';
import { httpProbe } from './health-probe.ts';
import { HealthTenure, type Work } from './health-tenure.ts';
import type { Leases } from './leases.ts';
import type { ServiceDiscovery } from './service-discovery.ts';
import { isName, urlOn } from './service-instance.ts';

export interface HealthCheckerOptions {
  /** Tells which instances there are, and is told how they are. */
  discovery: ServiceDiscovery;
  /** The names of the services whose instances are checked. */
  services: readonly string[];
  /** Asked for with GET where an instance has no `healthCheckUrl`. Default '/health'. */
  path?: string;
  /** The status of an answer that passes: one, several, or a function that tells at once. Default 200 to 299. */
  expectedStatus?: number | readonly number[] | ((status: number) => boolean);
  /** Milliseconds for a check, from the connection to the end of the answer. Default 2,000. */
  timeout?: number;
  /**
   * Milliseconds between two checks of an instance, at most; each wait is up to 15 % shorter at random.
   * Default 10,000.
   */
  interval?: number;
  /** Checks in a row that an unhealthy instance must pass to be healthy. Default 2. */
  rise?: number;
  /** Checks in a row that a healthy instance must fail to be unhealthy. Default 3. */
  fall?: number;
  /**
   * Checks under way at once; others wait for their turn. Default 50. Where many instances do not answer at
   * all they are checked less often for it: 50 at once with a timeout of 2 seconds are 25 a second.
   */
  maxConcurrent?: number;
  /**
   * Shares the work among checkers: each service is checked by the one that has its lease, and by another
   * within four intervals of its death. While the leases cannot be asked each checks by itself. Leave it out
   * where each process keeps the status for itself, as over static lists and DNS. Default: it always checks.
   */
  leases?: Leases;
  /** How connections are made: TLS, or a function, as `connection.connect` of a ServiceClient. */
  connect?: buildConnector.BuildOptions | buildConnector.connector;
}

export interface HealthCheckerEvents {
  /** The discovery has been told that an instance is healthy. */
  healthy: [change: HealthChange];
  /** The discovery has been told that an instance is unhealthy. */
  unhealthy: [change: HealthChange];
  /**
   * The discovery, the leases or `expectedStatus` failed, or a check that ran out of time while this process was
   * blocked counted for nothing. The checks go on; what was to be told will be.
   */
  failure: [error: unknown];
}

/** Where the options' own path is tried out. */
const ANYWHERE = { protocol: 'http', host: 'localhost', port: 80 } as const;

const checkPath: Check = (value, option) => {
  text(value, option);
  const path = value as string;
  if (!path.startsWith('/') || urlOn(ANYWHERE, path) === undefined) {
    throw new TypeError(`${option} must be a path such as '/health'; got '${path}'`);
  }
};

const connectOptions: Check = (value, option) => {
  either('an object of options or a function', anObject, func)(value, option);
  if (typeof value === 'object') checkForeignOptions(value, option, CONNECT_OPTIONS);
};

/** What no registry can hold would be checked in vain. */
const serviceName: Check = (value, option) => {
  text(value, option);
  if (!isName(value)) throw new TypeError(`${option} must be names of services; got '${value}'`);
};

const status = integer(100, 599);

/** A list of at least one value, each of which passes the check. */
function listOf(check: Check): Check {
  return (value, option) => {
    if (!Array.isArray(value) || value.length === 0)
      throw new TypeError(`${option} must be a list, not empty`);
    for (const item of value) check(item, option);
  };
}

/**
 * Checks the instances of some services by HTTP, again and again, and writes their status to the discovery:
 * so many checks failed in a row make one unhealthy, so many passed make it healthy again. Nothing but the
 * status is written, and only where the discovery shows another: also to one that forgot, or was told
 * otherwise. The status is the checker's: an instance that is to get no calls though it is well takes the
 * weight 0.
 *
 * An instance is asked at its own `healthCheckUrl`, or at `path`; never at another host or port than the one
 * that it is registered with, and redirects are not followed. The checks are spread over the interval. It
 * does not hold the process open.
 *
 * @example
 * const checker = new HealthChecker({ discovery, services: ['user-service'], leases });
 * checker.on('unhealthy', ({ instance, reason }) => log(`${instance.instanceId} is unhealthy: ${reason}`));
 * checker.start();
 * // …
 * await checker.close();
 */
export class HealthChecker extends Emitter<HealthCheckerEvents> {
  readonly #services: ReadonlySet<string>;
  readonly #begin: (serviceName: string) => Work;
  #work: Work[] | undefined = undefined;
  #closing: Promise<void> | undefined = undefined;

  constructor(options: HealthCheckerOptions) {
    super('health-checker');
    validateOptions('HealthChecker', options, {
      discovery: having('instances', 'watch', 'update'),
      services: listOf(serviceName),
      path: checkPath,
      expectedStatus: either(
        'a status from 100 to 599, a list of them, or a function',
        status,
        listOf(status),
        func,
      ),
      timeout: number(1, MAX_DELAY),
      interval: number(1, MAX_DELAY),
      rise: integer(1),
      fall: integer(1),
      maxConcurrent: integer(1),
      leases: having('acquire', 'release'),
      connect: connectOptions,
    });
    requireOption('HealthChecker', options, 'discovery');
    requireOption('HealthChecker', options, 'services');
    this.#services = new Set(options.services);
    this.#begin = this.#workOf(options);
  }

  /** Begins to check. Called again it does nothing. */
  start(): void {
    if (this.#closing !== undefined) throw new ClosedError('the HealthChecker');
    this.#work ??= Array.from(this.#services, this.#begin);
  }

  /**
   * Gives up the checks under way, waits for what is being written, and frees the leases; it takes at most 10
   * seconds. What fails then is a `failure` event.
   */
  close(): Promise<void> {
    this.#closing ??= Promise.all((this.#work ?? []).map((work) => work.stop())).then(() => {});
    return this.#closing;
  }

  /** Gives what begins the work on a service. */
  #workOf(options: HealthCheckerOptions): (serviceName: string) => Work {
    const { discovery, path = '/health', timeout = 2_000, interval = 10_000, connect = {}, leases } = options;
    const { rise = 2, fall = 3, maxConcurrent = 50 } = options;
    const onFailure = (error: unknown) => void this.emit('failure', error);
    const shared = {
      discovery,
      interval,
      rise,
      fall,
      onFailure,
      probe: httpProbe({ path, isExpected: expectationOf(options.expectedStatus), timeout, connect }),
      bulkhead: new Bulkhead({ maxConcurrent, maxQueue: Number.MAX_SAFE_INTEGER }),
      onChange: (change: HealthChange) =>
        void this.emit(change.instance.status === 'healthy' ? 'healthy' : 'unhealthy', change),
    };
    return (serviceName) => {
      const begin = (counts: () => boolean) => new HealthChecks({ ...shared, serviceName, counts });
      if (leases === undefined) return begin(() => true);
      return new HealthTenure({ leases, name: `health-check:${serviceName}`, interval, begin, onFailure });
    };
  }
}

function expectationOf(
  expected: HealthCheckerOptions['expectedStatus'] = (status) => status >= 200 && status < 300,
): (status: number) => boolean {
  if (typeof expected === 'function') {
    return (status) => decided(expected(status), "HealthChecker option 'expectedStatus'");
  }
  const statuses = new Set(typeof expected === 'number' ? [expected] : expected);
  return (status) => statuses.has(status);
}
