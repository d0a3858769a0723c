import { type AgentOptions, Agent as HttpAgent } from 'node:http';
import { Agent as HttpsAgent } from 'node:https';
import type { Socket } from 'node:net';
import type { InstanceClient } from '../client/instance-client.ts';
import type { ServiceInstance } from '../discovery/service-instance.ts';
import { withDefaults } from '../internal/with-defaults.ts';

/** An agent of Node's, with the members that its types leave out. */
export interface NodeAgent extends HttpAgent {
  keepAlive: boolean;
  /** Finds a socket for a request and gives it to the `onSocket` of that request. */
  addRequest(request: object, options: object): void;
}

/** Closes the idle sockets, and each busy one as soon as its request is done. */
export function closeIdleSockets(agent: HttpAgent): void {
  (agent as NodeAgent).keepAlive = false;
  for (const idle of Object.values(agent.freeSockets)) for (const socket of idle!) socket.destroy();
}

/**
 * Milliseconds after which an idle socket is closed: as long as undici keeps an idle connection.
 * With this option Node also heeds the time that the instance says in its `Keep-Alive` header.
 */
const IDLE_TIMEOUT = 4_000;

/** The sockets to one instance: an agent of Node's own, which keeps the idle ones alive. */
export class InstanceSockets {
  /** The sockets that are open, all handshakes done. */
  readonly open = new WeakSet<Socket>();
  readonly #agent: NodeAgent;
  readonly #client: InstanceClient;
  readonly #onClosed: () => void;
  #requests = 0;
  #onIdle: (() => void) | undefined = undefined;

  constructor(
    client: InstanceClient,
    instance: ServiceInstance,
    options: AgentOptions,
    onClosed: () => void,
  ) {
    this.#agent = new (instance.protocol === 'https' ? HttpsAgent : HttpAgent)(
      withDefaults({ keepAlive: true, timeout: IDLE_TIMEOUT }, options),
    ) as NodeAgent;
    this.#client = client;
    this.#onClosed = onClosed;
    client.others.add(this);
  }

  /**
   * Begins a request and finds a socket for it.
   *
   * @param request stands in for a request of Node's: its `onSocket` is called with the socket
   */
  begin(request: object, options: object): void {
    this.#requests++;
    this.find(request, options);
  }

  /** Finds another socket for a request that has begun. */
  find(request: object, options: object): void {
    this.#agent.addRequest(request, options);
  }

  /** Ends a request: to be called once for each that has begun, when nothing of it is under way. */
  end(): void {
    if (--this.#requests === 0) this.#onIdle?.();
  }

  /** Closes each socket when nothing is under way on it, and resolves when all are closed. */
  async close(): Promise<void> {
    closeIdleSockets(this.#agent);
    if (this.#requests > 0) {
      await new Promise<void>((resolve) => {
        this.#onIdle = resolve;
      });
    }
    this.#client.others.delete(this);
    this.#onClosed();
  }

  /** Closes all sockets at once. */
  destroy(): void {
    this.#agent.destroy();
  }
}
