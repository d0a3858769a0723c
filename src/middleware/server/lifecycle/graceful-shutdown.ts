import { deregistrationSignals } from '../../../discovery/deregistration-signals.ts';
import type { ServiceRegistrar } from '../../../discovery/service-registrar.ts';
import { ServerClosedError } from '../../../errors.ts';
import { Emitter } from '../../../internal/emitter.ts';
import { exitBySignal, SAME_SIGNAL_WINDOW } from '../../../internal/exit-by-signal.ts';
import { type Labels, OBSERVE, type Observation, observePart } from '../../../internal/observation.ts';
import {
  type Check,
  duration,
  either,
  hasMethods,
  isFunction,
  oneOf,
  validateOptions,
} from '../../../internal/validate.ts';
import { Timeout } from '../../../policies/timeout.ts';
import { type Closable, checkServer, closeOther, closeStopped, type HttpApplication } from './closable.ts';
import { DrainingServer, isNodeServer, nodeServerOf } from './draining-server.ts';

type OneOrMore<T> = T | readonly T[];

export interface GracefulShutdownOptions {
  /**
   * The servers that take requests. Give each before it listens, so that no request is overlooked, and
   * have nobody else close it.
   */
  server?: OneOrMore<Closable | HttpApplication> | undefined;
  /** Is told first, and reports that the instance is not ready from then on. */
  health?: { shutDown(): void } | undefined;
  /** Deregisters the instances that it has registered. */
  registrar?: OneOrMore<ServiceRegistrar> | undefined;
  /**
   * Milliseconds from the deregistration until no more connections are accepted, so that all
   * callers learn of it. Through Redis they know within 50 ms. Callers that ask DNS, and load
   * balancers that probe, know only when their cache expires: give more than that. Default 2,000.
   */
  drainDelay?: number | undefined;
  /** Milliseconds that requests which are in flight then may take. Default 15,000. */
  timeout?: number | undefined;
  /**
   * The clients, such as a ServiceClient, that are closed before `close`, once nothing is in
   * flight.
   */
  client?: OneOrMore<Closable> | undefined;
  /** Functions that are called at the end, one after the other, such as to close a database. */
  close?: readonly (() => unknown)[] | undefined;
  /** The signals that begin the shutdown; false for none. Default SIGTERM and SIGINT. */
  signals?: readonly ShutdownSignal[] | false | undefined;
}

const SIGNALS = ['SIGTERM', 'SIGINT', 'SIGHUP', 'SIGQUIT', 'SIGUSR2'] as const;

const signalList = either(
  `a list of signals (${SIGNALS.join(', ')}), or false`,
  oneOf(false),
  listOf(oneOf(...SIGNALS)),
);

function signalsOption(value: unknown, option: string): void {
  const uncatchable = ['SIGKILL', 'SIGSTOP'].find((name) => Array.isArray(value) && value.includes(name));
  if (uncatchable !== undefined)
    throw new RangeError(`${option} has ${uncatchable}, which no process can catch: leave it out`);
  signalList(value, option);
}

export type ShutdownSignal = (typeof SIGNALS)[number];

/** The name of a step of the shutdown. */
export type ShutdownStep = 'health' | 'deregister' | 'server' | 'client' | 'close';

export interface ShutdownFailure {
  readonly step: ShutdownStep;
  readonly error: unknown;
}

export interface ShutdownReport {
  /** The signal that began the shutdown, or the argument of `shutDown`. */
  readonly reason: string;
  /**
   * The number of requests that were cut off, since they were still in flight after the `timeout`.
   */
  readonly cut: number;
  readonly failures: readonly ShutdownFailure[];
  /** Milliseconds that the shutdown took. */
  readonly duration: number;
}

export interface GracefulShutdownEvents {
  begin: [event: { reason: string }];
  /** A step failed, or took too long. The other steps are not affected. */
  failure: [failure: ShutdownFailure];
  /** Requests were cut off. */
  cut: [event: { requests: number }];
  end: [report: ShutdownReport];
}

/** Milliseconds for all deregistrations together, and again for all closing at the end. */
const CLOSE_TIMEOUT = 5_000;
/** Milliseconds between two checks of whether a request is in flight. */
const POLL_INTERVAL = 10;

/**
 * Takes a process out of the mesh without a failed call: makes it unready, deregisters it, waits
 * until all callers have learned of that, lets requests in flight finish, and closes the rest. Each
 * step is bounded: with the defaults all of it takes less than the 30 seconds after which
 * Kubernetes kills.
 *
 * Requests are handled as ever until the end, since some callers do not know of the shutdown yet.
 * But from the beginning each response says that its connection is closed after it (`Connection:
 * close`, or GOAWAY over HTTP/2), so that no request is in flight on a connection when it is
 * closed: a POST that is lost there cannot be sent again.
 *
 * After a signal the process exits at last, so that its exit handlers run, with 128 + the number of
 * the signal (143 after SIGTERM, 130 after SIGINT), unless another listener of the signal is there,
 * which then decides. A second signal has it exit at once. A running shutdown holds the process open.
 *
 * @example
 * gracefulShutdown({ server: app, registrar, health, client, close: [() => discovery.close()] });
 * await app.listen({ port: 8000 });
 * await registrar.register();
 */
export function gracefulShutdown(options: GracefulShutdownOptions): GracefulShutdown {
  return new GracefulShutdown(options);
}

/** A shutdown that `gracefulShutdown` has prepared, to begin by hand, to listen to and to read. */
export class GracefulShutdown extends Emitter<GracefulShutdownEvents> {
  readonly #options: GracefulShutdownOptions;
  readonly #servers: readonly DrainingServer[];
  /** The frameworks, which are closed when their servers are done. */
  readonly #frameworks: readonly (Closable | HttpApplication)[];
  /** The servers of any other kind, which are done when their `close` says so. */
  readonly #others: readonly Closable[];
  readonly #signals: readonly ShutdownSignal[];
  readonly #failures: ShutdownFailure[] = [];
  #signalledAt: number | undefined = undefined;
  #shutDown: Promise<ShutdownReport> | undefined = undefined;

  constructor(options: GracefulShutdownOptions) {
    super('graceful-shutdown');
    validateOptions('gracefulShutdown', options, {
      server: oneOrMore(checkServer),
      health: hasMethods('shutDown'),
      registrar: oneOrMore(hasMethods('register', 'close')),
      drainDelay: duration,
      timeout: duration,
      client: oneOrMore(hasMethods('close')),
      close: listOf(isFunction),
      signals: signalsOption,
    });
    this.#options = options;
    const given = toList(options.server);
    this.#servers = given.map(nodeServerOf).flatMap((server) => (server ? [new DrainingServer(server)] : []));
    this.#others = given.filter((server): server is Closable => nodeServerOf(server) === undefined);
    this.#frameworks = given.filter((server) => !isNodeServer(server) && nodeServerOf(server) !== undefined);
    this.#signals = options.signals === false ? [] : (options.signals ?? ['SIGTERM', 'SIGINT']);
    for (const name of this.#signals) process.on(name, this.#onSignal);
  }

  /** The number of requests that are handled on servers of Node, Fastify's included. */
  get inFlight(): number {
    return this.#servers.reduce((sum, server) => sum + server.inFlight, 0);
  }

  /**
   * Shuts down, and resolves with a report. It never rejects, and does not end the process. Called
   * again, it gives the same promise.
   */
  shutDown(reason = 'shutDown()'): Promise<ShutdownReport> {
    this.#shutDown ??= this.#run(reason);
    return this.#shutDown;
  }

  /** @internal */
  override [OBSERVE](observation: Observation, labels: Labels): void {
    super[OBSERVE](observation, labels);
    const { health, registrar, client, server } = this.#options;
    for (const part of [health, registrar, client, server].flat()) observePart(part, observation, labels);
  }

  async #run(reason: string): Promise<ShutdownReport> {
    const { health, registrar, drainDelay = 2_000 } = this.#options;
    const startedAt = performance.now();
    this.emit('begin', { reason });
    await this.#step('health', CLOSE_TIMEOUT, () => health?.shutDown());
    for (const server of this.#servers) server.announce();
    await Promise.all(toList(registrar).map((one) => this.#deregister(one)));
    await sleep(drainDelay);
    const cut = await this.#drain();
    await this.#closeAll();
    this.#stopListening();
    const report = { reason, cut, failures: this.#failures, duration: performance.now() - startedAt };
    this.emit('end', report);
    return report;
  }

  async #step(step: ShutdownStep, timeout: number, operation: () => unknown): Promise<void> {
    try {
      await new Timeout(Math.max(1, timeout)).execute(operation);
    } catch (error) {
      this.#recordFailure({ step, error });
    }
  }

  #recordFailure(failure: ShutdownFailure): void {
    this.#failures.push(failure);
    this.emit('failure', failure);
  }

  /** Deregisters, and reports the error that a registrar tells by an event only. */
  async #deregister(registrar: ServiceRegistrar): Promise<void> {
    const onFailure = ({ error }: { error: unknown }) => this.#recordFailure({ step: 'deregister', error });
    registrar.on('failure', onFailure);
    await this.#step('deregister', CLOSE_TIMEOUT, () => registrar.close());
    registrar.off('failure', onFailure);
  }

  /**
   * Accepts no more, and waits for requests in flight; resolves with how many had to be cut off.
   */
  async #drain(): Promise<number> {
    const { timeout = 15_000 } = this.#options;
    // At this phase of the event loop Node has read all arrived data: no such request is lost.
    await new Promise((resolve) => setImmediate(resolve));
    for (const server of this.#servers) {
      if (!server.stop()) this.#recordFailure({ step: 'server', error: new ServerClosedError() });
    }
    const closing = this.#others.map((server) => this.#step('server', timeout, () => closeOther(server)));
    const until = performance.now() + timeout;
    while (performance.now() < until && this.#servers.some((server) => !server.isDone())) {
      await sleep(POLL_INTERVAL);
    }
    await Promise.all(closing);
    const requests = this.inFlight;
    for (const server of this.#servers) server.cut();
    if (requests > 0) this.emit('cut', { requests });
    return requests;
  }

  async #closeAll(): Promise<void> {
    const { client, close = [] } = this.#options;
    const until = performance.now() + CLOSE_TIMEOUT;
    const step = (name: ShutdownStep, operation: () => unknown) => {
      return this.#step(name, until - performance.now(), operation);
    };
    for (const framework of this.#frameworks) await step('server', () => closeStopped(framework));
    await Promise.all(toList(client).map((one) => step('client', () => one.close())));
    for (const operation of close) await step('close', operation);
    for (const server of this.#servers) server.destroy();
  }

  #stopListening(): void {
    for (const name of this.#signals) process.off(name, this.#onSignal);
  }

  readonly #onSignal = (name: NodeJS.Signals) => {
    if (this.#signalledAt === undefined) {
      this.#signalledAt = performance.now();
      void this.shutDown(name)
        .then(() => deregistrationSignals.closed)
        .then(() => {
          // Another listener of the signal decides, or another shutdown is not done yet.
          if (process.listenerCount(name) === 0) exitBySignal(name);
        });
    } else if (performance.now() - this.#signalledAt >= SAME_SIGNAL_WINDOW) {
      exitBySignal(name);
    }
  };
}

/** Waits, and holds the process open meanwhile, as the shutdown must. */
function sleep(milliseconds: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, milliseconds));
}

function toList<T>(given: OneOrMore<T> | undefined): readonly T[] {
  if (given === undefined) return [];
  return Array.isArray(given) ? given : [given as T];
}

function oneOrMore(check: Check): Check {
  return (value, option) => {
    for (const one of toList(value)) check(one, option);
  };
}

function listOf(check: Check): Check {
  return (value, option) => {
    if (!Array.isArray(value)) throw new TypeError(`${option} must be a list`);
    for (const one of value) check(one, option);
  };
}
