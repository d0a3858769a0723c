import type { Dispatcher } from 'undici';
import { simulate, type World } from '../../bench/simulations/harness.ts';
import {
  InMemoryServiceDiscovery,
  LoadBalancer,
  type LoadBalancerOptions,
  ServiceClient,
  type ServiceOptions,
} from '../../src/index.ts';
import * as undici from '../../src/internal/undici.ts';

export const service = 'user-service';

/** A number is the status that the instance responds with. A refused connection is one that cannot be made. */
export type Behaviour = 'well' | 'refused' | 'reset' | 'hang' | number;

/** One sending of a call, as the instance sees it. All times are milliseconds of virtual time. */
export interface Attempt {
  readonly call: Call;
  readonly instance: SimulatedInstance;
  readonly beganAt: number;
  /** Infinity while it is under way. */
  endedAt: number;
  /** Whether the client got no response, or one of 500 and above; also if the client gave it up. */
  failed: boolean;
}

export interface Call {
  readonly method: string;
  readonly beganAt: number;
  endedAt: number;
  error: (Error & { code?: string; status?: number }) | undefined;
  /** Whether the retry budget could not pay for another attempt. */
  budgetSpent: boolean;
  readonly attempts: Attempt[];
}

export interface ClientProcess {
  readonly balancer: LoadBalancer;
  readonly client: ServiceClient;
}

export interface SimulatedServiceOptions {
  instances: number;
  /** Client processes: each has a LoadBalancer and a ServiceClient of its own. Default 1. */
  processes?: number;
  balancer?: Omit<LoadBalancerOptions, 'discovery'>;
  client?: ServiceOptions;
  /** Milliseconds that a response takes. Default: 2 to 4. */
  takes?: () => number;
}

/**
 * Runs a scenario on virtual time, with a service whose instances exist only in this process: calls go through the real
 * ServiceClient and LoadBalancer down to undici's `Client.dispatch`, which the simulated instances stand in for.
 */
export async function withService<T>(
  options: SimulatedServiceOptions,
  scenario: (service: SimulatedService, world: World) => Promise<T>,
  seed = 1,
): Promise<T> {
  try {
    return await simulate(seed, async (world) => {
      const simulated = new SimulatedService(world, options);
      running = simulated;
      await simulated.start();
      const result = await scenario(simulated, world);
      for (const { balancer } of simulated.processes) balancer.close();
      return result;
    });
  } finally {
    running = undefined;
  }
}

let running: SimulatedService | undefined;

// Once, rather than for each scenario: V8 forgets what it has optimized when a prototype changes.
const { prototype } = undici.Client;
const { dispatch } = prototype;
prototype.dispatch = function (request, handler) {
  return running === undefined
    ? dispatch.call(this, request, handler)
    : running.dispatch(this, request, handler);
};

export class SimulatedService {
  readonly world: World;
  readonly instances: SimulatedInstance[] = [];
  readonly discovery = new InMemoryServiceDiscovery({ ttl: Infinity });
  readonly processes: readonly ClientProcess[];
  readonly calls: Call[] = [];
  /** Each change of the breaker's state, with its time. */
  readonly breaker: { readonly to: string; readonly at: number }[] = [];
  /** How many retries there were. */
  retries = 0;
  /** Is told of each attempt as it begins. */
  onAttempt: (attempt: Attempt) => void = () => {};
  readonly #byHost = new Map<string, SimulatedInstance>();
  readonly #takes: () => number;

  constructor(world: World, options: SimulatedServiceOptions) {
    const { instances, processes = 1, takes } = options;
    this.world = world;
    this.#takes = takes ?? (() => 2 + 2 * Math.random());
    for (let index = 0; index < instances; index++) this.#add();
    this.processes = Array.from({ length: processes }, () => this.#startProcess(options));
  }

  /** That of the first process. */
  get balancer(): LoadBalancer {
    return this.processes[0]!.balancer;
  }

  /** That of the first process. */
  get client(): ServiceClient {
    return this.processes[0]!.client;
  }

  #startProcess({ balancer: rules, client: guards = {} }: SimulatedServiceOptions): ClientProcess {
    const balancer = new LoadBalancer({ discovery: this.discovery, ...rules });
    const client = new ServiceClient({ loadBalancer: balancer, services: { [service]: guards } });
    const { circuitBreaker, retry } = client.policies(service);
    circuitBreaker?.on('state', ({ to }) => this.breaker.push({ to, at: performance.now() }));
    retry?.on('retry', () => this.retries++);
    retry?.on('give-up', ({ reason, attributes }) => {
      if (reason === 'budget') this.#callOf(attributes.path as string).budgetSpent = true;
    });
    return { balancer, client };
  }

  /** Registers the instances that there are from the beginning. */
  async start(): Promise<void> {
    for (const instance of this.instances) await this.#register(instance);
  }

  /** Another instance registers. */
  async join(): Promise<SimulatedInstance> {
    const instance = this.#add();
    await this.#register(instance);
    return instance;
  }

  async leave(instance: SimulatedInstance): Promise<void> {
    await this.discovery.deregister(service, instance.id);
  }

  /** Makes a call, whose end can be seen in what it resolves with: it never rejects. */
  async call(method = 'GET', { client } = this.processes[0]!): Promise<Call> {
    const call: Call = {
      method,
      beganAt: performance.now(),
      endedAt: Number.POSITIVE_INFINITY,
      error: undefined,
      budgetSpent: false,
      attempts: [],
    };
    const number = this.calls.push(call) - 1;
    try {
      await client.call({ service, method, path: `/calls/${number}`, hashKey: `key ${number}` });
    } catch (error) {
      call.error = error as Error;
    }
    call.endedAt = performance.now();
    return call;
  }

  /** So many calls at once; resolves when all have ended. */
  burst(count: number, method?: string): Promise<Call[]> {
    return Promise.all(Array.from({ length: count }, () => this.call(method)));
  }

  /** Calls at an even pace for some milliseconds; resolves when all have ended. */
  async steady(perSecond: number, duration: number, method?: string): Promise<Call[]> {
    const calls: Promise<Call>[] = [];
    const count = Math.round((perSecond * duration) / 1000);
    for (let index = 0; index < count; index++) {
      calls.push(this.call(method));
      await this.world.sleep(1000 / perSecond);
    }
    return Promise.all(calls);
  }

  /** The attempts that an instance got in a stretch of time, as a multiple of its fair share among these. */
  shareOf(
    instance: SimulatedInstance,
    from: number,
    to: number,
    among: readonly SimulatedInstance[] = this.instances,
  ): number {
    const within = ({ attempts }: SimulatedInstance) =>
      attempts.filter(({ beganAt }) => beganAt >= from && beganAt < to).length;
    const all = among.reduce((sum, each) => sum + within(each), 0);
    return (within(instance) * among.length) / all;
  }

  dispatch(client: Client, request: Dispatcher.DispatchOptions, handler: Handler): boolean {
    const { hostname } = (client as unknown as Record<symbol, URL>)[kUrl]!;
    const attempt = this.#byHost.get(hostname)!.receive(client, this.#callOf(request.path), handler);
    this.onAttempt(attempt);
    return false;
  }

  #callOf(path: string): Call {
    return this.calls[Number(path.slice('/calls/'.length))]!;
  }

  #add(): SimulatedInstance {
    const instance = new SimulatedInstance(this.world, `i${this.instances.length}`, () => this.#takes());
    this.instances.push(instance);
    this.#byHost.set(instance.host, instance);
    return instance;
  }

  async #register({ id, host }: SimulatedInstance): Promise<void> {
    await this.discovery.register({ serviceName: service, instanceId: id, host, port: 80 });
  }
}

const { kUrl } = undici.symbols as unknown as { kUrl: symbol };

type Handler = Dispatcher.DispatchHandler;
type Client = InstanceType<typeof undici.Client>;

const BODY = Buffer.from('{"ok":true}');
const HEADERS = { 'content-type': 'application/json' };
/** Milliseconds until a connection is there, or the connection is refused. */
const CONNECT = 0.5;
/** Milliseconds after which an instance that is not well says so, if it does. */
const FAIL = 1;

export class SimulatedInstance {
  readonly id: string;
  readonly host: string;
  readonly attempts: Attempt[] = [];
  /** Milliseconds that a response takes. */
  takes: () => number;
  readonly #world: World;
  readonly #connected = new Set<Client>();
  #behaviour: Behaviour | (() => Behaviour) = 'well';

  constructor(world: World, id: string, takes: () => number) {
    this.#world = world;
    this.id = id;
    this.host = `${id}.test`;
    this.takes = takes;
  }

  /**
   * From now on; what is under way ends as it began. One that refuses connections has closed those that were idle. A
   * function tells it anew for each request.
   */
  become(behaviour: Behaviour | (() => Behaviour)): void {
    this.#behaviour = behaviour;
    if (behaviour !== 'refused') return;
    for (const client of this.#connected) this.#disconnect(client, otherSideClosed());
  }

  /** Takes a request as a connection of undici does, and ends it as this instance behaves. */
  receive(client: Client, call: Call, handler: Handler): Attempt {
    const exchange = new SimulatedExchange(client, call, this, handler);
    if (this.#connected.has(client)) this.#respond(exchange);
    else this.#world.later(CONNECT, () => this.#connect(client, exchange));
    return exchange.attempt;
  }

  #connect(client: Client, exchange: SimulatedExchange): void {
    if (this.#behaviour === 'refused') {
      exchange.refuse();
      return;
    }
    this.#connected.add(client);
    client.emit('connect', ORIGIN, [client]);
    this.#respond(exchange);
  }

  #respond(exchange: SimulatedExchange): void {
    const behaviour = typeof this.#behaviour === 'function' ? this.#behaviour() : this.#behaviour;
    if (!exchange.begin() || behaviour === 'hang') return;
    if (behaviour === 'reset') {
      this.#world.later(FAIL, () => exchange.reset());
      return;
    }
    const status = typeof behaviour === 'number' ? behaviour : 200;
    this.#world.later(status === 200 ? this.takes() : FAIL, () => exchange.respond(status));
  }

  /** The connection is gone. */
  disconnect(client: Client, error: Error): void {
    if (this.#connected.has(client)) this.#disconnect(client, error);
  }

  #disconnect(client: Client, error: Error): void {
    this.#connected.delete(client);
    client.emit('disconnect', ORIGIN, [client], error as never);
  }
}

const ORIGIN = new URL('http://simulated.test');

/** One request on one connection, with the controller that undici gives for it. */
class SimulatedExchange {
  readonly rawHeaders = undefined;
  readonly rawTrailers = undefined;
  readonly paused = false;
  aborted = false;
  reason: Error | null = null;
  readonly #client: Client;
  readonly #handler: Handler;
  readonly attempt: Attempt;

  constructor(client: Client, call: Call, instance: SimulatedInstance, handler: Handler) {
    this.#client = client;
    this.#handler = handler;
    const beganAt = performance.now();
    this.attempt = { call, instance, beganAt, endedAt: Number.POSITIVE_INFINITY, failed: false };
    call.attempts.push(this.attempt);
    instance.attempts.push(this.attempt);
  }

  get #controller(): Dispatcher.DispatchController {
    return this as unknown as Dispatcher.DispatchController;
  }

  abort(reason: Error): void {
    if (this.#over) return;
    this.aborted = true;
    this.reason = reason;
    this.#fail(reason);
    queueMicrotask(() => this.attempt.instance.disconnect(this.#client, reason));
  }

  /** False if the handler does not want it any more: it has thrown, as one does that was aborted before. */
  begin(): boolean {
    try {
      this.#handler.onRequestStart!(this.#controller, {});
      return !this.#over;
    } catch (error) {
      this.#fail(error as Error);
      return false;
    }
  }

  respond(status: number): void {
    if (this.#over) return;
    this.#end(status >= 500);
    this.#handler.onResponseStart!(this.#controller, status, HEADERS);
    this.#handler.onResponseData!(this.#controller, BODY);
    this.#handler.onResponseEnd!(this.#controller, {});
    this.#client.emit('drain', ORIGIN);
  }

  refuse(): void {
    const error = Object.assign(new Error('connect ECONNREFUSED'), { code: 'ECONNREFUSED' });
    this.#fail(error);
    this.#client.emit('connectionError', ORIGIN, [this.#client], error as never);
  }

  reset(): void {
    const error = otherSideClosed();
    this.#fail(error);
    this.attempt.instance.disconnect(this.#client, error);
  }

  get #over(): boolean {
    return this.attempt.endedAt !== Number.POSITIVE_INFINITY;
  }

  #fail(error: Error): void {
    if (this.#over) return;
    this.#end(true);
    this.#handler.onResponseError!(this.#controller, error);
  }

  #end(failed: boolean): void {
    this.attempt.endedAt = performance.now();
    this.attempt.failed = failed;
  }
}

function otherSideClosed(): Error {
  return new undici.errors.SocketError('other side closed');
}
