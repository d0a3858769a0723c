import { Agent as HttpAgent, type RequestOptions } from 'node:http';
import { type AgentOptions, Agent as HttpsAgent } from 'node:https';
import type { Endpoint } from '../client/endpoint.ts';
import { asError } from '../client/exchange.ts';
import { MESH_CHECKS, type MeshOptions, MeshTargets } from '../client/mesh-target.ts';
import { type ClientInUse, clientInUse } from '../client/own-client.ts';
import type { ServiceClient, ServiceClientOptions } from '../client/service-client.ts';
import { ClosedError, InvalidRequestError } from '../errors.ts';
import { CONNECT_OPTIONS, checkExternalOptions } from '../internal/external-options.ts';
import { LinkedList } from '../internal/linked-list.ts';
import { any, type Check, hasMethods, validateOptions } from '../internal/validate.ts';
import { type AgentClientRequest, AgentRequest, type SocketsOf } from './agent-request.ts';
import { closeIdle, InstanceSockets, type TakesRequests } from './instance-sockets.ts';

export interface MeshHttpAgentOptions extends MeshOptions {
  /**
   * Options of Node's Agent for the sockets to each instance, and to hosts outside the mesh: `maxSockets` is for each
   * of them. `keepAlive` is on by default, and an idle socket to an instance is closed after 4,000 ms.
   */
  agent?: AgentOptions;
  /** Take the requests that are not the mesh's. Default: the agent itself does, as one of Node's own would. */
  fallback?: Fallback;
}

interface Fallback {
  http?: HttpAgent | undefined;
  https?: HttpAgent | undefined;
}

const OWNER = 'createHttpAgent()';

/**
 * An Agent for `node:http` that sends requests for services through the mesh, and `.https`, the same for `https:` URLs:
 * for got, superagent, node-fetch, the AWS SDK and all else that is built on `node:http`.
 *
 * Each request is balanced by itself, over sockets that are kept alive, and judged by its answer: the breaker and the
 * limits of its service hold, and its timeouts, which bound the wait for the head of the answer, and the deadline of the
 * request that is being served. As long as no socket to an instance is open another is tried, as the service's `retry`
 * says. What has been sent is the caller's: it cannot be sent again from here, nor hedged, nor answered by a fallback or
 * a cache.
 *
 * What is refused is an 'error' of the request: a HoldfastError, or what Node says of a connection that cannot be made.
 * The protocol is that with which an instance is registered, whatever the URL says; TLS uses the `connection` options of
 * the service, and its name where the host of the instance is an IP address. The `Host` is that of the instance, unless
 * the caller has set one.
 *
 * @example
 * const agent = createHttpAgent(client);
 * await got('http://user-service/users/u1', { agent: { http: agent, https: agent.https } });
 */
export function createHttpAgent(
  clientOrOptions: ServiceClient | ServiceClientOptions,
  options: MeshHttpAgentOptions = {},
): MeshHttpAgent {
  validateOptions(OWNER, options, { ...MESH_CHECKS, agent: agentOptions, fallback: any });
  const { agent = {}, fallback = {}, route, strict } = options;
  validateOptions(`${OWNER}, option 'fallback'`, fallback, {
    http: hasMethods('addRequest'),
    https: hasMethods('addRequest'),
  });
  const targets = new MeshTargets(OWNER, { route, strict } as MeshOptions);
  return new MeshHttpAgent(new Mesh(clientInUse(clientOrOptions), targets, agent), agent, fallback);
}

/** What Node's Agent takes besides what its connections are made with. */
const AGENT_OPTIONS: ReadonlySet<string> = new Set([
  ...CONNECT_OPTIONS,
  'agentKeepAliveTimeoutBuffer',
  'createConnection',
  'defaultPort',
  'keepAliveMsecs',
  'maxFreeSockets',
  'maxSockets',
  'maxTotalSockets',
  'protocol',
  'proxyEnv',
  'scheduling',
]);

const agentOptions: Check = (value, option) => checkExternalOptions(value, option, AGENT_OPTIONS);

/** See `createHttpAgent`. Its own `sockets` and the like are those to hosts outside the mesh. */
export class MeshHttpAgent extends HttpAgent {
  /** The same for `https:` URLs. */
  readonly https: HttpsAgent;
  readonly #mesh: Mesh;
  readonly #fallback: HttpAgent | undefined;

  /** Made by `createHttpAgent`. */
  constructor(mesh: Mesh, options: AgentOptions, { http, https }: Fallback) {
    super({ keepAlive: true, ...options });
    this.https = new MeshHttpsAgent(mesh, options, https);
    this.#mesh = mesh;
    this.#fallback = http;
  }

  /** Called by Node. */
  addRequest(request: AgentClientRequest, options: RequestOptions): void {
    if (!this.#mesh.takes(request, options, 'http:')) passOn(this, this.#fallback, request, options);
  }

  /**
   * Takes no more requests to services, and resolves when those under way are done; then closes the client, if it was
   * made for this. Idle sockets are closed.
   */
  async close(): Promise<void> {
    closeIdle(this);
    closeIdle(this.https);
    await this.#mesh.close();
  }

  /** Ends all that is under way, and closes all sockets, and the client, if it was made for this. */
  override destroy(): void {
    super.destroy();
    this.https.destroy();
  }
}

class MeshHttpsAgent extends HttpsAgent {
  readonly #mesh: Mesh;
  readonly #fallback: HttpAgent | undefined;

  constructor(mesh: Mesh, options: AgentOptions, fallback: HttpAgent | undefined) {
    super({ keepAlive: true, ...options });
    this.#mesh = mesh;
    this.#fallback = fallback;
  }

  addRequest(request: AgentClientRequest, options: RequestOptions): void {
    if (!this.#mesh.takes(request, options, 'https:')) passOn(this, this.#fallback, request, options);
  }

  override destroy(): void {
    super.destroy();
    this.#mesh.destroy();
  }
}

/** To the agent that is there for what is not the mesh's: failing that this one, as if it were one of Node's own. */
function passOn(
  agent: HttpAgent,
  fallback: HttpAgent | undefined,
  request: AgentClientRequest,
  options: RequestOptions,
): void {
  const { addRequest } = (fallback ?? HttpAgent.prototype) as unknown as TakesRequests;
  addRequest.call(fallback ?? agent, request, options);
}

/** What the two agents share. */
class Mesh {
  readonly #client: ServiceClient;
  readonly #ownsClient: boolean;
  readonly #targets: MeshTargets;
  readonly #agentOptions: AgentOptions;
  readonly #sockets = new Map<Endpoint, InstanceSockets>();
  readonly #underWay = new LinkedList<AgentRequest>();
  #whenNone: (() => void) | undefined = undefined;
  #closing: Promise<void> | undefined = undefined;

  constructor({ client, owned }: ClientInUse, targets: MeshTargets, agentOptions: AgentOptions) {
    this.#client = client;
    this.#ownsClient = owned;
    this.#targets = targets;
    this.#agentOptions = agentOptions;
  }

  /** Takes a request if it is for a service, or has to be refused. */
  takes(request: AgentClientRequest, options: RequestOptions, protocol: string): boolean {
    try {
      const url = urlOf(options, protocol);
      const service = this.#targets.serviceOf(url);
      if (service === undefined) {
        const nearMiss = this.#targets.nearMissOf(url);
        if (nearMiss !== undefined) this.#client.notePassthrough(nearMiss);
        return false;
      }
      if (this.#closing !== undefined) throw new ClosedError('the agent');
      if (request.destroyed) request.onSocket(null);
      else this.#send(request, options, service);
    } catch (error) {
      request.onSocket(null, asError(error));
    }
    return true;
  }

  #send(request: AgentClientRequest, options: RequestOptions, service: string): void {
    const call = new AgentRequest(request, options, () => {
      this.#underWay.remove(call);
      if (this.#underWay.length === 0) this.#whenNone?.();
    });
    this.#underWay.append(call);
    void call.send(this.#client, service, this.#socketsOf);
  }

  readonly #socketsOf: SocketsOf = ({ endpoint, instance }) => {
    let sockets = this.#sockets.get(endpoint);
    if (sockets === undefined) {
      sockets = new InstanceSockets(endpoint, instance, this.#agentOptions, () => {
        this.#sockets.delete(endpoint);
      });
      this.#sockets.set(endpoint, sockets);
    }
    return sockets;
  };

  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    if (this.#underWay.length > 0) {
      await new Promise<void>((resolve) => {
        this.#whenNone = resolve;
      });
    }
    await Promise.all(Array.from(this.#sockets.values(), (sockets) => sockets.close()));
    if (this.#ownsClient) await this.#client.close();
  }

  destroy(): void {
    const calls: AgentRequest[] = [];
    for (let call = this.#underWay.head; call !== undefined; call = call.next) calls.push(call);
    for (const { request } of calls) request.destroy();
    for (const sockets of this.#sockets.values()) sockets.destroy();
    if (this.#ownsClient) void this.close();
  }
}

function urlOf({ host, port, socketPath }: RequestOptions, protocol: string): URL {
  const name = socketPath === undefined ? String(host) : 'localhost';
  const url = `${protocol}//${/^[^[].*:/.test(name) ? `[${name}]` : name}:${port}`;
  try {
    return new URL(url);
  } catch (cause) {
    throw new InvalidRequestError(`not the host and port of a URL: ${url.slice(0, 200)}`, { cause });
  }
}
