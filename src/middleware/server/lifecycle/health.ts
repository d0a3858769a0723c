import type { IncomingMessage, ServerResponse } from 'node:http';
import { inspect } from 'node:util';
import type { ServiceClient } from '../../../client/service-client.ts';
import type { ServiceDiscovery } from '../../../discovery/service-discovery.ts';
import type { ServiceRegistrar } from '../../../discovery/service-registrar.ts';
import { decided } from '../../../internal/decision.ts';
import {
  anObject,
  boolean,
  duration,
  either,
  func,
  having,
  instanceOf,
  integer,
  listOf,
  MAX_DELAY,
  matching,
  text,
  validateOptions,
} from '../../../internal/validate.ts';
import { CircuitBreaker } from '../../../policies/circuit-breaker.ts';
import type { Operation } from '../../../policies/context.ts';
import { Timeout } from '../../../policies/timeout.ts';
import { sendNodeResponse } from '../frameworks/node-request.ts';
import { pathOf, type RequestSummary } from '../guard/incoming-request.ts';
import type { LocalResponse } from '../guard/local-response.ts';
import { DEFAULT_PREFIX, isProbe, probePaths } from './probe-paths.ts';

/** What a check found: false for a failure; an object passes, and is shown if the health is `verbose`. */
// biome-ignore lint/suspicious/noConfusingVoidType: a check that only has to come to its end
export type ReadinessCheckResult = boolean | object | undefined | void;

/** Looks whether something works. What it throws is a failure. Its context's `signal` aborts when its time is over. */
export type ReadinessCheck = Operation<ReadinessCheckResult>;

/** A discovery; one that can be stale, as that over Redis, is asked whether it is. */
export interface WatchedDiscovery extends Pick<ServiceDiscovery, 'instances'> {
  on?(event: 'stale', listener: (event: { serviceName: string }) => void): unknown;
  isStale?(serviceName: string): boolean;
}

export interface HealthOptions {
  /** What must work for requests to be answered, by the name under which it is shown: a database, a cache that is warm. */
  checks?: Readonly<Record<string, ReadinessCheck>>;
  /** The circuit breakers to show, by name: a CircuitBreaker, or the client that calls the service of that name. */
  breakers?: Readonly<Record<string, CircuitBreaker | ServiceClient>>;
  /**
   * Those of the `breakers` that make the instance unready while they are open. Name only what nothing can be answered
   * without: all instances have the same dependencies, and are unready together. Default: none.
   */
  critical?: readonly string[];
  /** It is shown of which services it is out of date. That fails nothing: calls go on with what was known. */
  discovery?: WatchedDiscovery;
  /** It is shown whether it is registered. */
  registrar?: ServiceRegistrar;
  /** Milliseconds that each check may take. Default 1,000. */
  timeout?: number;
  /** Milliseconds that what the checks found is used again, so that probes do not become load. Default 1,000. */
  cacheFor?: number;
  /**
   * Shows the checks, breakers and stale services by name, what checks returned, and the messages of those that
   * failed: for networks that you trust. Default false: only how it stands with all of them together.
   */
  verbose?: boolean;
  /** What the paths begin with: `/health` for `/health/live` and `/health/ready`. Default `/health`. */
  prefix?: string;
}

/** `warn` is a pass: something is amiss, but requests are answered. */
export type HealthStatus = 'pass' | 'warn' | 'fail';

export interface HealthBody {
  readonly status: HealthStatus;
  /** That the instance is on its way out. */
  readonly shuttingDown?: true;
  /** Only if `verbose`. */
  readonly checks?: Readonly<Record<string, CheckReport>>;
  /** Only if `verbose`. */
  readonly breakers?: Readonly<Record<string, BreakerReport>>;
  /** The services of which the discovery may be out of date: which ones, only if `verbose`. */
  readonly discovery?: { readonly status: HealthStatus; readonly stale?: readonly string[] };
  readonly registered?: boolean;
}

export interface CheckReport {
  readonly status: HealthStatus;
  /** What it returned. */
  readonly details?: object;
  /** Why it failed. */
  readonly error?: string;
}

export interface BreakerReport {
  readonly status: HealthStatus;
  readonly state: CircuitBreaker['state'];
}

export interface HealthReport {
  /** 200 or 503, as a probe wants it. */
  readonly status: 200 | 503;
  readonly body: HealthBody;
}

interface TextResponse extends LocalResponse {
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string;
}

const ALIVE: HealthReport = { status: 200, body: { status: 'pass' } };
const LEAVING: HealthReport = { status: 503, body: { status: 'fail', shuttingDown: true } };

/**
 * Says whether the process is alive and whether it is ready for requests, for the probes of Kubernetes, of load
 * balancers and of a HealthChecker.
 *
 * Alive means that it answers at all, and depends on nothing else: who asks for it restarts what is not, and no
 * restart mends a database that is down; it would only take all instances away at once, with what they had cached
 * and had under way. Ready means that the checks pass and no critical breaker is open, until `shutDown()`. Checks
 * run at once, each within the `timeout`; probes that come together share one run.
 *
 * An open breaker makes an instance unready only until its next probe is due: without requests none would be sent.
 *
 * Source of the bodies: Irakli Nadareishvili, 'Health Check Response Format for HTTP APIs' (draft-inadarei).
 *
 * @example
 * const health = new Health({
 *   checks: { database: ({ signal }) => database.ping({ signal }) },
 *   breakers: { 'user-service': client },
 * });
 * app.use(health.handler);
 */
export class Health {
  readonly #checks: readonly [name: string, check: ReadinessCheck][];
  readonly #breakers: readonly [name: string, breaker: CircuitBreaker, critical: boolean][];
  readonly #discovery: WatchedDiscovery | undefined;
  readonly #stale = new Set<string>();
  readonly #registrar: ServiceRegistrar | undefined;
  readonly #timeout: Timeout;
  readonly #cacheFor: number;
  readonly #verbose: boolean;
  readonly #prefix: string;
  #found: Promise<Record<string, CheckReport>> | undefined = undefined;
  #foundUntil = 0;
  #shuttingDown = false;

  constructor(options: HealthOptions = {}) {
    validateOptions('Health', options, {
      checks: functions,
      breakers: breakerTable,
      critical: listOf(text, "a list of names of the 'breakers'"),
      discovery: having('instances'),
      registrar: having('register', 'close'),
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

  /** Whether the process is alive: it is, or it could not say so. Also while it shuts down. */
  live(): HealthReport {
    return ALIVE;
  }

  /** Whether it is ready for requests. Never rejects. */
  async ready(): Promise<HealthReport> {
    if (this.#shuttingDown) return LEAVING;
    const checks = await this.#find();
    // It may have been told so in the meantime.
    return this.#shuttingDown ? LEAVING : this.#report(checks);
  }

  /** From now on it is not ready: nobody should send it anything more. */
  shutDown(): void {
    this.#shuttingDown = true;
  }

  /** Whether it answers a request: for the `exempt` of a ServerGuard, where the `prefix` is another than `/health`. */
  readonly isProbe = (request: RequestSummary): boolean => isProbe(request, this.#prefix);

  /** For node:http, Express and Connect. What is not for it goes to `next`, or is not found where there is none. */
  readonly handler = (request: IncomingMessage, response: ServerResponse, next?: () => void): void => {
    const answer = this.#respond(request.method!, pathOf(request.url ?? '/'));
    if (answer !== undefined) {
      void answer.then((ready) => sendNodeResponse(response, ready));
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
    const answer = await this.#respond(ctx.method, ctx.path);
    if (answer === undefined) await next();
    else {
      ctx.status = answer.status;
      ctx.body = answer.body;
      ctx.set({ ...answer.headers });
    }
  };

  /** Middleware for Hono. */
  readonly hono = async (c: HonoProbeContext, next: () => Promise<void>): Promise<Response | undefined> => {
    const answer = await this.#respond(c.req.method, c.req.path);
    if (answer === undefined) {
      await next();
      return undefined;
    }
    return new Response(answer.body, { status: answer.status, headers: answer.headers });
  };

  #respond(method: string, path: string): Promise<TextResponse> | undefined {
    if (!this.isProbe({ method, path })) return undefined;
    const [live] = probePaths(this.#prefix);
    return path === live ? Promise.resolve(toResponse(this.live())) : this.ready().then(toResponse);
  }

  #find(): Promise<Record<string, CheckReport>> {
    if (this.#found === undefined || performance.now() >= this.#foundUntil) {
      this.#foundUntil = Infinity;
      this.#found = this.#runChecks().finally(() => {
        this.#foundUntil = performance.now() + this.#cacheFor;
      });
    }
    return this.#found;
  }

  async #runChecks(): Promise<Record<string, CheckReport>> {
    const run = async ([name, check]: [string, ReadinessCheck]) => [name, await this.#run(check)] as const;
    return Object.fromEntries(await Promise.all(this.#checks.map(run)));
  }

  async #run(check: ReadinessCheck): Promise<CheckReport> {
    try {
      const result = await this.#timeout.execute(check);
      if (result === false) return { status: 'fail' };
      if (!this.#verbose || typeof result !== 'object' || result === null) return { status: 'pass' };
      return { status: 'pass', details: JSON.parse(JSON.stringify(result)) };
    } catch (error) {
      if (!this.#verbose) return { status: 'fail' };
      return { status: 'fail', error: error instanceof Error ? error.message : inspect(error) };
    }
  }

  #report(checks: Record<string, CheckReport>): HealthReport {
    const breakers = Object.fromEntries(this.#breakers.map(([name, ...of]) => [name, reportOf(...of)]));
    const discovery = this.#discovery && this.#reportOfDiscovery(this.#discovery);
    const parts = [...Object.values(checks), ...Object.values(breakers), ...(discovery ? [discovery] : [])];
    const status = worstOf(parts.map((part) => part.status));
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

  #reportOfDiscovery(discovery: WatchedDiscovery): NonNullable<HealthBody['discovery']> {
    // It does not tell of services that it no longer follows.
    for (const name of this.#stale) if (!isStale(discovery, name)) this.#stale.delete(name);
    const status = this.#stale.size > 0 ? 'warn' : 'pass';
    return this.#verbose ? { status, stale: [...this.#stale].sort() } : { status };
  }
}

/** What is needed of an instance of Fastify. */
export interface FastifyRoutesLike {
  get(path: string, handler: (request: unknown, reply: FastifyProbeReply) => Promise<unknown>): unknown;
}

/** What is needed of a reply of Fastify. */
export interface FastifyProbeReply {
  code(status: number): FastifyProbeReply;
  headers(headers: Record<string, unknown>): FastifyProbeReply;
  send(body: unknown): FastifyProbeReply;
}

/** What is needed of a context of Koa. */
export interface KoaProbeContext {
  readonly method: string;
  readonly path: string;
  status: number;
  body: unknown;
  set(headers: { [name: string]: string | string[] }): void;
}

/** What is needed of a context of Hono. */
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

/** One that cannot say is taken for stale, which fails nothing. */
function isStale(discovery: WatchedDiscovery, name: string): boolean {
  try {
    return decided(discovery.isStale?.(name) ?? false, "isStale() of Health option 'discovery'");
  } catch {
    return true;
  }
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

/** Whether it lets nothing through just now. It stays open until a call comes, which may be the probe that closes it. */
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
    throw new TypeError(`Health option 'critical' names '${unknown}', which is none of the 'breakers'`);
  }
  return Object.entries(breakers).map(([name, of]) => {
    const breaker = of instanceof CircuitBreaker ? of : of.policies(name).circuitBreaker;
    if (breaker === undefined) {
      throw new TypeError(`Health option 'breakers': the client has no circuit breaker for '${name}'`);
    }
    return [name, breaker, critical.includes(name)];
  });
}

const breakerOrClient = either(
  'a CircuitBreaker or a ServiceClient',
  instanceOf(CircuitBreaker, 'a CircuitBreaker'),
  having('policies'),
);

function breakerTable(value: unknown, option: string): void {
  anObject(value, option);
  for (const [name, of] of Object.entries(value as object)) breakerOrClient(of, `${option}, '${name}'`);
}

function functions(value: unknown, option: string): void {
  anObject(value, option);
  for (const [name, check] of Object.entries(value as object)) func(check, `${option}, '${name}'`);
}
