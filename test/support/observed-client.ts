import { request as httpRequest, type IncomingMessage } from 'node:http';
import { text } from 'node:stream/consumers';
import axios from 'axios';
import { request as undiciRequest } from 'undici';
import {
  axiosAdapter,
  createHttpAgent,
  HoldfastError,
  LoadBalancer,
  type LoadBalancerOptions,
  ServiceClient,
  type ServiceDiscovery,
  ServiceError,
  StaticServiceDiscovery,
} from '../../src/index.ts';

/** The name of the only service that an ObservedClient calls. */
export const service = 'user-service';

/** How a call ended. Times are on the clock of `performance.now()`. */
export interface EndedCall {
  readonly begun: number;
  readonly ended: number;
  /** Where the response, or the failure, came from, as far as the caller learns it. */
  readonly instanceId: string | undefined;
  /** Undefined for a success. */
  readonly error: unknown;
}

/** A response, whatever its status. The instances of the tests send their id. */
interface Reply {
  readonly status: number;
  readonly body: string;
}

type Send = () => Promise<Reply>;

const path = '/';
const url = `http://${service}${path}`;

/** The ways to send a call. */
export const FACES = {
  call: (client) => {
    let calls = 0;
    return async () => {
      const body = await client.call<string>({ service, path, hashKey: String(calls++) });
      return { status: 200, body };
    };
  },
  POST: (client) => async () => {
    const body = await client.call<string>({ service, path, method: 'POST', body: { quantity: 1 } });
    return { status: 200, body };
  },
  request: (client) => async () => {
    const { status, body } = await client.request({ service, path });
    return { status, body: await text(body) };
  },
  fetch: (client) => async () => {
    const response = await client.fetch(url);
    return { status: response.status, body: await response.text() };
  },
  dispatcher: (client) => async () => {
    const { statusCode, body } = await undiciRequest(url, { dispatcher: client.dispatcher });
    return { status: statusCode, body: await body.text() };
  },
  axios: (client) => {
    const api = axios.create({ adapter: axiosAdapter(client), validateStatus: null });
    return async () => {
      const { status, data } = await api.get<string>(url);
      return { status, body: data };
    };
  },
  agent: (client, whenClosed) => {
    const agent = createHttpAgent(client);
    whenClosed(() => agent.destroy());
    return async () => {
      const response = await new Promise<IncomingMessage>((resolve, reject) => {
        httpRequest(url, { agent }).on('response', resolve).on('error', reject).end();
      });
      return { status: response.statusCode!, body: await text(response) };
    };
  },
} satisfies Record<string, (client: ServiceClient, whenClosed: (close: () => void) => void) => Send>;

export type Face = keyof typeof FACES;

export interface ObservedClientOptions extends Omit<LoadBalancerOptions, 'discovery'> {
  /** A discovery of the instances, or their ids (`host:port`). */
  instances: ServiceDiscovery | readonly string[];
  /** How calls are sent. Default `call`, a GET. */
  face?: Face;
}

/** A ServiceClient with its default options, and what became of each call that was made through it. */
export class ObservedClient {
  readonly calls: EndedCall[] = [];
  readonly client: ServiceClient;
  readonly balancer: LoadBalancer;
  /** When the breaker of the service opened. */
  readonly openings: number[] = [];
  /** How often it let a probe through. */
  probes = 0;
  /** How many calls were not retried since the budget could not pay. */
  unpaid = 0;
  /** When the first failure of an attempt was known. */
  firstFailure = Infinity;
  /** When each instance was first ejected. */
  readonly ejectedAt = new Map<string, number>();
  readonly #send: Send;
  readonly #toClose: (() => void)[] = [];

  constructor({ instances, face = 'call', ...options }: ObservedClientOptions) {
    const discovery = 'watch' in instances ? instances : discoveryOf(instances);
    this.balancer = new LoadBalancer({ discovery, ...options });
    this.balancer.on('eject', ({ instance: { instanceId } }) => {
      if (!this.ejectedAt.has(instanceId)) this.ejectedAt.set(instanceId, performance.now());
    });
    this.client = new ServiceClient({ loadBalancer: this.balancer });
    this.#send = FACES[face](this.client, (close) => this.#toClose.push(close));
    const { circuitBreaker, retry } = this.client.policies(service);
    circuitBreaker!.on('open', () => void this.openings.push(performance.now()));
    circuitBreaker!.on('half-open', () => void this.probes++);
    retry!.on('retry', () => this.#failed());
    retry!.on('give-up', ({ reason }) => {
      this.#failed();
      if (reason === 'budget') this.unpaid++;
    });
  }

  get failures(): EndedCall[] {
    return this.calls.filter(({ error }) => error !== undefined);
  }

  /** The calls that began so many milliseconds after a moment, or later, and before another. */
  since(moment: number, from: number, to = Infinity): EndedCall[] {
    return this.calls.filter(({ begun }) => begun >= moment + from && begun < moment + to);
  }

  /** Makes so many calls at once, and waits until all have ended. */
  async burst(count: number): Promise<void> {
    await Promise.all(Array.from({ length: count }, () => this.#call()));
  }

  /** Begins calls at an even pace for `duration` milliseconds, then waits until all have ended. */
  async steady(perSecond: number, duration: number): Promise<void> {
    const pending: Promise<void>[] = [];
    const begun = performance.now();
    await new Promise<void>((resolve) => {
      const timer = setInterval(() => {
        const elapsed = performance.now() - begun;
        while (pending.length < (Math.min(elapsed, duration) * perSecond) / 1000) pending.push(this.#call());
        if (elapsed < duration) return;
        clearInterval(timer);
        resolve();
      }, 5);
    });
    await Promise.all(pending);
  }

  async close(): Promise<void> {
    for (const close of this.#toClose) close();
    await this.client.close();
    this.balancer.close();
  }

  async #call(): Promise<void> {
    const begun = performance.now();
    let instanceId: string | undefined;
    let error: unknown;
    try {
      const { status, body } = await this.#send();
      instanceId = body;
      if (status !== 200) error = new Error(`status ${status}`);
    } catch (reason) {
      const cause = holdfastErrorOf(reason);
      if (cause instanceof ServiceError) instanceId = cause.instanceId;
      error = cause ?? reason;
    }
    if (error !== undefined) this.#failed();
    this.calls.push({ begun, ended: performance.now(), instanceId, error });
  }

  #failed(): void {
    this.firstFailure = Math.min(this.firstFailure, performance.now());
  }
}

export function isCircuitOpen({ error }: EndedCall): boolean {
  return error instanceof HoldfastError && error.code === 'ERR_CIRCUIT_OPEN';
}

/** Faces for other clients wrap the error. */
function holdfastErrorOf(error: unknown): HoldfastError | undefined {
  if (error instanceof HoldfastError) return error;
  return error instanceof Error && error.cause !== undefined ? holdfastErrorOf(error.cause) : undefined;
}

function discoveryOf(ids: readonly string[]): StaticServiceDiscovery {
  return new StaticServiceDiscovery({ [service]: ids.map((id) => `http://${id}`) });
}
