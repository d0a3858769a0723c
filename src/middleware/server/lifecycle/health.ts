import type { IncomingMessage, ServerResponse } from 'node:http';
import { inspect } from 'node:util';
import type { ServiceClient } from '../../../client/service-client.ts';
import type { ServiceDiscovery } from '../../../discovery/service-discovery.ts';
import type { ServiceRegistrar } from '../../../discovery/service-registrar.ts';
import { decided } from '../../../internal/decision.ts';
import { Emitter } from '../../../internal/emitter.ts';
import { type Labels, OBSERVE, type Observation, observePart } from '../../../internal/observation.ts';
import { shown } from '../../../internal/shown.ts';
import {
  anObject,
  boolean,
  duration,
  either,
  hasMethods,
  instanceOf,
  integer,
  isFunction,
  listOf,
  MAX_DELAY,
  matching,
  nonEmptyString,
  validateOptions,
} from '../../../internal/validate.ts';
import { CircuitBreaker } from '../../../policies/circuit-breaker.ts';
import type { Operation } from '../../../policies/context.ts';
import { Timeout } from '../../../policies/timeout.ts';
import { sendNodeResponse } from '../frameworks/node-request.ts';
import { pathOf, type RequestSummary } from '../guard/incoming-request.ts';
import type { LocalResponse } from '../guard/local-response.ts';
import { DEFAULT_PREFIX, isProbe, probePaths } from './probe-paths.ts';

/**
 * The result of a check: false is a failure; an object passes, and is shown if the health is
 * `verbose`.
 */
// biome-ignore lint/suspicious/noConfusingVoidType: a check that only has to come to its end
export type ReadinessCheckResult = boolean | object | undefined | void;

/**
 * Checks whether something works. An error is a failure. The `signal` of its context aborts when
 * the `timeout` is over.
 */
export type ReadinessCheck = Operation<ReadinessCheckResult>;

/** A discovery. If it can be stale, as RedisServiceDiscovery can, the health asks whether it is. */
export interface WatchedDiscovery extends Pick<ServiceDiscovery, 'instances'> {
  on?(event: 'stale', listener: (event: { serviceName: string }) => void): unknown;
  isStale?(serviceName: string): boolean;
}

export interface HealthOptions {
  /**
   * The checks that must pass for requests to be handled, as of a database, by the name to show.
   */
  checks?: Readonly<Record<string, ReadinessCheck>> | undefined;
  /**
   * The circuit breakers to show, by name: a CircuitBreaker, or the client that calls the service
   * of that name.
   */
  breakers?: Readonly<Record<string, CircuitBreaker | ServiceClient>> | undefined;
  /**
   * The names of the `breakers` that make the instance unready while they are open. Name only
   * services without which no request can be handled: all instances have the same dependencies, and
   * are unready together. Default: none.
   */
  critical?: readonly string[] | undefined;
  /**
   * Its stale services are shown. That fails nothing: calls use the instances that were known last.
   */
  discovery?: WatchedDiscovery | undefined;
  /** Whether it has registered the instance is shown. */
  registrar?: ServiceRegistrar | undefined;
  /** Milliseconds that each check may take. Default 1,000. */
  timeout?: number | undefined;
  /**
   * Milliseconds that the results of checks are reused, so that probes do not become load. Default
   * 1,000.
   */
  cacheFor?: number | undefined;
  /**
   * Shows the checks, breakers and stale services by name, the results of checks, and the messages
   * of failed ones: for networks that you trust. Default false: only the status of all of them
   * together.
   */
  verbose?: boolean | undefined;
  /**
   * The beginning of the paths: `/health` for `/health/live` and `/health/ready`. Default
   * `/health`.
   */
  prefix?: string | undefined;
}

/** `warn` is a pass: something is amiss, but requests are handled. */
export type HealthStatus = 'pass' | 'warn' | 'fail';

export interface HealthBody {
  readonly status: HealthStatus;
  /** Is there while the instance shuts down. */
  readonly shuttingDown?: true | undefined;
  /** The checks by name; only if `verbose`. */
  readonly checks?: Readonly<Record<string, CheckReport>> | undefined;
  /** The breakers by name; only if `verbose`. */
  readonly breakers?: Readonly<Record<string, BreakerReport>> | undefined;
  /**
   * Whether the discovery may be stale for a service; the names of such services only if `verbose`.
   */
  readonly discovery?:
    | { readonly status: HealthStatus; readonly stale?: readonly string[] | undefined }
    | undefined;
  readonly registered?: boolean | undefined;
}

export interface CheckReport {
  readonly status: HealthStatus;
  /** The result of the check. */
  readonly details?: object | undefined;
  /** The message of the check's error. */
  readonly error?: string | undefined;
}

export interface BreakerReport {
  readonly status: HealthStatus;
  readonly state: CircuitBreaker['state'];
}

export interface HealthEvents {
  /**
   * A probe found another status than the one before, which is `pass` at first. `reasons` names what
   * does not pass: `check database`, `breaker user-service`, `discovery user-service`.
   */
  change: [
    event: {
      from: HealthStatus;
      to: HealthStatus;
      reasons: readonly string[];
      /** The error of the first check that failed. */
      error: unknown;
    },
  ];
}

export interface HealthReport {
  /** The HTTP status for a probe. */
  readonly status: 200 | 503;
  readonly body: HealthBody;
}

interface TextResponse extends LocalResponse {
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string;
}

const ALIVE: HealthReport = { status: 200, body: { status: 'pass' } };
const SHUTTING_DOWN: HealthReport = { status: 503, body: { status: 'fail', shuttingDown: true } };

/**
 * Reports whether the process is alive and whether it is ready for requests, for the probes of
 * Kubernetes, of load balancers and of a HealthChecker.
 *
 * A process is alive if it responds at all, whatever else is down: an orchestrator restarts a
 * process that is not alive, and no restart mends a database that is down. Restarts would only take
 * all instances away at once, with their caches and the requests in flight. A process is ready if
 * the checks pass and no critical breaker is open, until `shutDown()`. All checks run at once, each
 * within the `timeout`; probes that come together share one run.
 *
 * An open breaker makes an instance unready only until its next probe is due: without requests no
 * probe would be sent.
 *
 * Source of the bodies: Irakli Nadareishvili, 'Health Check Response Format for HTTP APIs'
 * (draft-inadarei).
 *
 * @example
 * const health = new Health({
 *   checks: { database: ({ signal }) => database.ping({ signal }) },
 *   breakers: { 'user-service': client },
 * });
 * app.use(health.handler);
 */
export class Health extends Emitter<HealthEvents> {
  readonly #checks: readonly [name: string, check: ReadinessCheck][];
  readonly #breakers: readonly [name: string, breaker: CircuitBreaker, critical: boolean][];
  readonly #discovery: WatchedDiscovery | undefined;
  readonly #stale = new Set<string>();
  readonly #registrar: ServiceRegistrar | undefined;
  readonly #timeout: Timeout;
  readonly #cacheFor: number;
  readonly #verbose: boolean;
  readonly #prefix: string;
  #checkResults: Promise<Record<string, CheckReport>> | undefined = undefined;
  #checkResultsUntil = 0;
  /** The errors of the checks that failed last, by name. */
  readonly #errors = new Map<string, unknown>();
  #status: HealthStatus = 'pass';
  #shuttingDown = false;

  constructor(options: HealthOptions = {}) {
    super('health');
    validateOptions('Health', options, {
      checks: checkTable,
      breakers: breakerTable,
      critical: listOf(nonEmptyString, "a list of names of the 'breakers'"),
      discovery: hasMethods('instances'),
      registrar: hasMethods('register', 'close'),
      timeout: integer(1, MAX_DELAY),
      cacheFor: duration,
      verbose: boolean,
      prefix: matching(/^(?:\/[\w.~-]+)*$/, "a path that begins, and does not end, with a slash, or ''"),
    });
    this.#checks = Object.entries(options.checks ?? {});
    this.#breakers = resolveBreakers(options);
    this.#discovery = options.discovery;
    this.#discovery?.on?.('stale', ({ serviceName }) => void this.#stale.add(serviceName));
    this.#registrar = options.registrar;
    this.#timeout = new Timeout(options.timeout ?? 1_000);
    this.#cacheFor = options.cacheFor ?? 1_000;
    this.#verbose = options.verbose ?? false;
    this.#prefix = options.prefix ?? DEFAULT_PREFIX;
  }

  /**
   * Reports that the process is alive, as it is if it can report. It is so while it shuts down,
   * too.
   */
  live(): HealthReport {
    return ALIVE;
  }

  /** Reports whether the instance is ready for requests. Never rejects. */
  async ready(): Promise<HealthReport> {
    if (this.#shuttingDown) return SHUTTING_DOWN;
    const checks = await this.#readChecks();
    // shutDown() may have been called in the meantime.
    return this.#shuttingDown ? SHUTTING_DOWN : this.#report(checks);
  }

  /** Makes the instance unready from now on, so that no more requests are sent to it. */
  shutDown(): void {
    this.#shuttingDown = true;
  }

  /**
   * Whether a request is a probe: for the `exempt` of a ServerGuard, if the `prefix` is not
   * `/health`.
   */
  readonly isProbe = (request: RequestSummary): boolean => isProbe(request, this.#prefix);

  /**
   * Responds on node:http, Express and Connect. Other requests go to `next`, or get 404 without
   * one.
   */
  readonly handler = (request: IncomingMessage, response: ServerResponse, next?: () => void): void => {
    const probed = this.#respond(request.method!, pathOf(request.url ?? '/'));
    if (probed !== undefined) {
      void probed.then((local) => sendNodeResponse(response, local));
    } else if (next !== undefined) next();
    else response.writeHead(404).end();
  };

  /** A plugin for Fastify: `app.register(health.fastify)`. */
  readonly fastify = (app: FastifyRoutesLike, _options: unknown, done: () => void): void => {
    for (const path of probePaths(this.#prefix)) {
      app.get(path, async (_request, reply) => {
        const { status, headers, body } = await this.#respond('GET', path)!;
        return reply
          .code(status)
          .headers({ ...headers })
          .send(body);
      });
    }
    done();
  };

  /** Middleware for Koa. */
  readonly koa = async (ctx: KoaProbeContext, next: () => Promise<unknown>): Promise<void> => {
    const response = await this.#respond(ctx.method, ctx.path);
    if (response === undefined) await next();
    else {
      ctx.status = response.status;
      ctx.body = response.body;
      ctx.set({ ...response.headers });
    }
  };

  /** Middleware for Hono. */
  readonly hono = async (c: HonoProbeContext, next: () => Promise<void>): Promise<Response | undefined> => {
    const response = await this.#respond(c.req.method, c.req.path);
    if (response === undefined) {
      await next();
      return undefined;
    }
    return new Response(response.body, { status: response.status, headers: response.headers });
  };

  /** @internal */
  override [OBSERVE](observation: Observation, labels: Labels): void {
    super[OBSERVE](observation, labels);
    for (const [, breaker] of this.#breakers) observePart(breaker, observation, labels);
    observePart(this.#discovery, observation, labels);
    observePart(this.#registrar, observation, labels);
  }

  #respond(method: string, path: string): Promise<TextResponse> | undefined {
    if (!this.isProbe({ method, path })) return undefined;
    const [live] = probePaths(this.#prefix);
    return path === live ? Promise.resolve(toResponse(this.live())) : this.ready().then(toResponse);
  }

  #readChecks(): Promise<Record<string, CheckReport>> {
    if (this.#checkResults === undefined || performance.now() >= this.#checkResultsUntil) {
      this.#checkResultsUntil = Infinity;
      this.#checkResults = this.#runChecks().finally(() => {
        this.#checkResultsUntil = performance.now() + this.#cacheFor;
      });
    }
    return this.#checkResults;
  }

  async #runChecks(): Promise<Record<string, CheckReport>> {
    const run = async ([name, check]: [string, ReadinessCheck]) =>
      [name, await this.#run(name, check)] as const;
    return Object.fromEntries(await Promise.all(this.#checks.map(run)));
  }

  async #run(name: string, check: ReadinessCheck): Promise<CheckReport> {
    this.#errors.delete(name);
    try {
      const result = await this.#timeout.execute(check);
      if (result === false) return { status: 'fail' };
      if (!this.#verbose || typeof result !== 'object' || result === null) return { status: 'pass' };
      return { status: 'pass', details: JSON.parse(JSON.stringify(result)) };
    } catch (error) {
      this.#errors.set(name, error);
      if (!this.#verbose) return { status: 'fail' };
      return { status: 'fail', error: error instanceof Error ? error.message : inspect(error) };
    }
  }

  #report(checks: Record<string, CheckReport>): HealthReport {
    const breakers = Object.fromEntries(this.#breakers.map(([name, ...of]) => [name, reportOf(...of)]));
    const discovery = this.#discovery && this.#reportOfDiscovery(this.#discovery);
    const parts = [...Object.values(checks), ...Object.values(breakers), ...(discovery ? [discovery] : [])];
    const status = worstOf(parts.map((part) => part.status));
    this.#note(status, [...namesOf('check', checks), ...namesOf('breaker', breakers)]);
    return {
      status: status === 'fail' ? 503 : 200,
      body: {
        status,
        ...(this.#verbose && this.#checks.length > 0 && { checks }),
        ...(this.#verbose && this.#breakers.length > 0 && { breakers }),
        ...(discovery && { discovery }),
        ...(this.#registrar && { registered: this.#registrar.instance !== undefined }),
      },
    };
  }

  #note(to: HealthStatus, failing: readonly string[]): void {
    const from = this.#status;
    if (from === to) return;
    this.#status = to;
    const stale = Array.from(this.#stale, (name) => `discovery ${name}`);
    const [error] = this.#errors.values();
    this.emit('change', { from, to, reasons: [...failing, ...stale], error });
  }

  #reportOfDiscovery(discovery: WatchedDiscovery): NonNullable<HealthBody['discovery']> {
    // The discovery does not tell when it stops following a service.
    for (const name of this.#stale) if (!isStale(discovery, name)) this.#stale.delete(name);
    const status = this.#stale.size > 0 ? 'warn' : 'pass';
    return this.#verbose ? { status, stale: [...this.#stale].sort() } : { status };
  }
}

/** The part of a Fastify instance that a health needs. */
export interface FastifyRoutesLike {
  get(path: string, handler: (request: unknown, reply: FastifyProbeReply) => Promise<unknown>): unknown;
}

/** The part of Fastify's reply that a health needs. */
export interface FastifyProbeReply {
  code(status: number): FastifyProbeReply;
  headers(headers: Record<string, unknown>): FastifyProbeReply;
  send(body: unknown): FastifyProbeReply;
}

/** The part of Koa's context that a health needs. */
export interface KoaProbeContext {
  readonly method: string;
  readonly path: string;
  status: number;
  body: unknown;
  set(headers: { [name: string]: string | string[] }): void;
}

/** The part of Hono's context that a health needs. */
export interface HonoProbeContext {
  readonly req: { readonly method: string; readonly path: string };
}

function toResponse({ status, body }: HealthReport): TextResponse {
  return {
    status,
    headers: { 'content-type': 'application/json; charset=utf-8', 'cache-control': 'no-store' },
    body: JSON.stringify(body),
  };
}

/**
 * Whether a service is stale. If the discovery's function throws, it counts as stale, which fails
 * nothing.
 */
function isStale(discovery: WatchedDiscovery, name: string): boolean {
  try {
    return decided(discovery.isStale?.(name) ?? false, "isStale() of Health option 'discovery'");
  } catch {
    return true;
  }
}

/** Names the parts that do not pass. */
function namesOf(what: string, parts: Readonly<Record<string, { status: HealthStatus }>>): string[] {
  return Object.keys(parts)
    .filter((name) => parts[name]!.status !== 'pass')
    .map((name) => `${what} ${name}`);
}

function worstOf(statuses: readonly HealthStatus[]): HealthStatus {
  if (statuses.includes('fail')) return 'fail';
  return statuses.includes('warn') ? 'warn' : 'pass';
}

function reportOf(breaker: CircuitBreaker, critical: boolean): BreakerReport {
  const { state } = breaker;
  if (state === 'closed') return { status: 'pass', state };
  return { status: critical && rejectsCalls(breaker) ? 'fail' : 'warn', state };
}

/**
 * Whether a breaker rejects calls just now. It stays open until a call comes, which may be the
 * probe that closes it.
 */
function rejectsCalls(breaker: CircuitBreaker): boolean {
  const { state, probeAt = Infinity } = breaker.toJSON();
  return state === 'isolated' || (state === 'open' && Date.now() < probeAt);
}

function resolveBreakers({
  breakers = {},
  critical = [],
}: HealthOptions): [string, CircuitBreaker, boolean][] {
  const unknown = critical.find((name) => !Object.hasOwn(breakers, name));
  if (unknown !== undefined) {
    throw new TypeError(`Health option 'critical' names ${shown(unknown)}, which is none of the 'breakers'`);
  }
  return Object.entries(breakers).map(([name, of]) => {
    const breaker = of instanceof CircuitBreaker ? of : of.policies(name).circuitBreaker;
    if (breaker === undefined) {
      throw new TypeError(`Health option 'breakers': the client has no circuit breaker for ${shown(name)}`);
    }
    return [name, breaker, critical.includes(name)];
  });
}

const breakerOrClient = either(
  'a CircuitBreaker or a ServiceClient',
  instanceOf(CircuitBreaker, 'a CircuitBreaker'),
  hasMethods('policies'),
);

function breakerTable(value: unknown, option: string): void {
  anObject(value, option);
  for (const [name, of] of Object.entries(value as object)) breakerOrClient(of, `${option}, ${shown(name)}`);
}

function checkTable(value: unknown, option: string): void {
  anObject(value, option);
  for (const [name, check] of Object.entries(value as object)) isFunction(check, `${option}, ${shown(name)}`);
}
