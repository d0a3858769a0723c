import { type AgentOptions, Agent as HttpAgent } from 'node:http';
import { Agent as HttpsAgent } from 'node:https';
import type { Socket } from 'node:net';
import type { InstanceClient } from '../client/instance-client.ts';
import type { ServiceInstance } from '../discovery/service-instance.ts';

/** The method by which Node gives a request to its agent, which Node's types leave out. */
export interface TakesRequests {
  addRequest(request: object, options: object): void;
}

/** Closes the sockets on which nothing is under way, and the others when that is done. */
export function closeIdle(agent: HttpAgent): void {
  (agent as { keepAlive?: boolean }).keepAlive = false;
  for (const idle of Object.values(agent.freeSockets)) for (const socket of idle!) socket.destroy();
}

/**
 * As long as undici keeps an idle connection. With it Node heeds how long the instance says that it
 * will.
 */
const IDLE = 4_000;

/** The sockets to one instance: an agent of Node's own, which keeps the idle ones alive. */
export class InstanceSockets {
  /** The sockets that are open, all handshakes done. */
  readonly open = new WeakSet<Socket>();
  readonly #agent: HttpAgent;
  readonly #client: InstanceClient;
  readonly #whenClosed: () => void;
  #requests = 0;
  #whenIdle: (() => void) | undefined = undefined;

  constructor(
    client: InstanceClient,
    { protocol }: ServiceInstance,
    options: AgentOptions,
    whenClosed: () => void,
  ) {
    this.#agent = new (protocol === 'https' ? HttpsAgent : HttpAgent)({
      keepAlive: true,
      timeout: IDLE,
      ...options,
    });
    this.#client = client;
    this.#whenClosed = whenClosed;
    client.others.add(this);
  }

  /** Finds a socket for what stands in for a request: its `onSocket` is called with one. */
  begin(request: object, options: object): void {
    this.#requests++;
    this.find(request, options);
  }

  /** Finds another socket for what has begun. */
  find(request: object, options: object): void {
    // Node calls this method of every agent; its types leave it out.
    (this.#agent as unknown as TakesRequests).addRequest(request, options);
  }

  /**
   * To be called once for each request that has begun, when nothing of it is under way any more.
   */
  end(): void {
    if (--this.#requests === 0) this.#whenIdle?.();
  }

  /** Closes each socket when nothing is under way on it, and resolves when all are. */
  async close(): Promise<void> {
    closeIdle(this.#agent);
    if (this.#requests > 0) {
      await new Promise<void>((resolve) => {
        this.#whenIdle = resolve;
      });
    }
    this.#client.others.delete(this);
    this.#whenClosed();
  }

  /** Closes all at once. */
  destroy(): void {
    this.#agent.destroy();
  }
}
