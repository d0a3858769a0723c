import { Agent as HttpAgent, type RequestOptions } from 'node:http';
import { type AgentOptions, Agent as HttpsAgent } from 'node:https';
import type { EngineHandle } from '../client/call-engine.ts';
import { InFlightCalls } from '../client/in-flight-calls.ts';
import type { InstanceClient } from '../client/instance-client.ts';
import { MESH_CHECKS, type MeshOptions, MeshTargets, RENAMED_MESH_OPTIONS } from '../client/mesh-target.ts';
import { resolveClient } from '../client/resolve-client.ts';
import type { ServiceClient, ServiceClientOptions } from '../client/service-client.ts';
import { asError } from '../client/service-errors.ts';
import { ClosedError, InvalidRequestError } from '../errors.ts';
import { CONNECT_OPTIONS, checkExternalOptions } from '../internal/external-options.ts';
import { shown } from '../internal/shown.ts';
import { any, type Check, hasMethods, validateOptions } from '../internal/validate.ts';
import { withDefaults } from '../internal/with-defaults.ts';
import { type AgentClientRequest, AgentRequest, type GetSockets } from './agent-request.ts';
import { closeIdleSockets, InstanceSockets, type NodeAgent } from './instance-sockets.ts';

export interface MeshHttpAgentOptions extends MeshOptions {
  /**
   * Options of Node's Agent for the sockets to each instance, and to hosts outside the mesh:
   * `maxSockets` is for each of them. `keepAlive` is on by default, and an idle socket to an
   * instance is closed after 4,000 ms.
   */
  agent?: AgentOptions | undefined;
  /**
   * The agents for requests to hosts outside the mesh. Default: the agent itself sends them, as one
   * of Node's own would.
   */
  passthrough?: PassthroughAgents | undefined;
}

interface PassthroughAgents {
  http?: HttpAgent | undefined;
  https?: HttpAgent | undefined;
}

const OWNER = 'createHttpAgent()';

/**
 * Creates an Agent for `node:http` that sends requests for services through the mesh, and `.https`,
 * the same for `https:` URLs: for got, superagent, node-fetch, the AWS SDK and all other clients
 * that are built on `node:http`.
 *
 * Each request is balanced by itself, over sockets that are kept alive, and judged by its response.
 * The breaker and the limits of its service apply, and so do its timeouts, which bound the wait for
 * the head of the response, and the deadline of the request that is being served. While a socket
 * to an instance cannot be opened, another instance is used, as the `retry` of the service says.
 * Once sent, a request is the caller's: the agent cannot send it again, hedge it, or replace its
 * response by that of a fallback or a cache.
 *
 * A request that is rejected emits 'error': with a HoldfastError, or with the error that Node gives
 * of a connection that cannot be made. The protocol is the one with which the instance is
 * registered, whatever the URL says. TLS uses the `connection` options of the service, and its name
 * where the host of the instance is an IP address. The `Host` is that of the instance, unless the
 * caller has set one.
 *
 * @example
 * const agent = createHttpAgent(client);
 * await got('http://user-service/users/u1', { agent: { http: agent, https: agent.https } });
 *
 * @throws TypeError naming the option that is not what it must be
 */
export function createHttpAgent(
  clientOrOptions: ServiceClient | ServiceClientOptions,
  options: MeshHttpAgentOptions = {},
): MeshHttpAgent {
  const checks = { ...MESH_CHECKS, agent: checkAgentOptions, passthrough: any };
  validateOptions(OWNER, options, checks, RENAMED_MESH_OPTIONS);
  const { agent = {}, passthrough = {}, route, strict } = options;
  validateOptions(`${OWNER}, option 'passthrough'`, passthrough, {
    http: hasMethods('addRequest'),
    https: hasMethods('addRequest'),
  });
  const targets = new MeshTargets(OWNER, { route, strict } as MeshOptions);
  return new MeshHttpAgent(new Mesh(resolveClient(clientOrOptions), targets, agent), agent, passthrough);
}

/** The options of Node's Agent, those of its connections included. */
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

const checkAgentOptions: Check = (value, option) => checkExternalOptions(value, option, AGENT_OPTIONS);

/**
 * See `createHttpAgent`. Its own `sockets`, `freeSockets` and `requests` are for hosts outside the
 * mesh.
 */
export class MeshHttpAgent extends HttpAgent {
  /** The agent for `https:` URLs. */
  readonly https: HttpsAgent;
  readonly #mesh: Mesh;
  readonly #passthrough: HttpAgent | undefined;

  /**
   * Is called by `createHttpAgent`.
   *
   * @internal
   */
  constructor(mesh: Mesh, options: AgentOptions, { http, https }: PassthroughAgents) {
    super(withDefaults({ keepAlive: true }, options));
    this.https = new MeshHttpsAgent(mesh, options, https);
    this.#mesh = mesh;
    this.#passthrough = http;
  }

  /**
   * Is called by Node for each request.
   *
   * @internal
   */
  addRequest(request: AgentClientRequest, options: RequestOptions): void {
    if (!this.#mesh.accept(request, options, 'http:')) passThrough(this, this.#passthrough, request, options);
  }

  /**
   * Rejects further requests to services, and waits for the ones under way; then closes the client,
   * if it was made for this agent. Idle sockets are closed.
   */
  async close(): Promise<void> {
    closeIdleSockets(this);
    closeIdleSockets(this.https);
    await this.#mesh.close();
  }

  /**
   * Ends all requests under way, and closes all sockets, and the client, if it was made for this
   * agent.
   */
  override destroy(): void {
    super.destroy();
    this.https.destroy();
  }
}

class MeshHttpsAgent extends HttpsAgent {
  readonly #mesh: Mesh;
  readonly #passthrough: HttpAgent | undefined;

  constructor(mesh: Mesh, options: AgentOptions, passthrough: HttpAgent | undefined) {
    super(withDefaults({ keepAlive: true }, options));
    this.#mesh = mesh;
    this.#passthrough = passthrough;
  }

  addRequest(request: AgentClientRequest, options: RequestOptions): void {
    if (!this.#mesh.accept(request, options, 'https:'))
      passThrough(this, this.#passthrough, request, options);
  }

  override destroy(): void {
    super.destroy();
    this.#mesh.destroy();
  }
}

/**
 * Hands a request to a host outside the mesh to the passthrough agent; without one, to this agent,
 * as if it were one of Node's own.
 */
function passThrough(
  agent: HttpAgent,
  passthrough: HttpAgent | undefined,
  request: AgentClientRequest,
  options: RequestOptions,
): void {
  const { addRequest } = (passthrough ?? HttpAgent.prototype) as NodeAgent;
  addRequest.call(passthrough ?? agent, request, options);
}

/** The mesh behind the two agents, which share its client, targets and sockets. */
class Mesh {
  readonly #client: EngineHandle;
  readonly #targets: MeshTargets;
  readonly #agentOptions: AgentOptions;
  readonly #sockets = new Map<InstanceClient, InstanceSockets>();
  readonly #calls = new InFlightCalls();
  #closing: Promise<void> | undefined = undefined;

  constructor(client: EngineHandle, targets: MeshTargets, agentOptions: AgentOptions) {
    this.#client = client;
    this.#targets = targets;
    this.#agentOptions = agentOptions;
  }

  /** Sends or rejects a request, if it is for a service; false if it is to pass through. */
  accept(request: AgentClientRequest, options: RequestOptions, protocol: string): boolean {
    try {
      const origin = originOf(options, protocol);
      const { service, nearMiss } = this.#targets.targetOf(origin, () => parseOrigin(origin));
      if (service === undefined) {
        if (nearMiss !== undefined) this.#client.engine.notePassthrough(nearMiss);
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
    const call = new AgentRequest(request, options, () => this.#calls.remove(call));
    this.#calls.add(call);
    void call.send(this.#client.engine, service, this.#getSockets);
  }

  readonly #getSockets: GetSockets = ({ client, instance }) => {
    let sockets = this.#sockets.get(client);
    if (sockets === undefined) {
      sockets = new InstanceSockets(client, instance, this.#agentOptions, () => {
        this.#sockets.delete(client);
      });
      this.#sockets.set(client, sockets);
    }
    return sockets;
  };

  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    await this.#calls.waitUntilIdle();
    await Promise.all(Array.from(this.#sockets.values(), (sockets) => sockets.close()));
    await this.#client.close();
  }

  destroy(): void {
    this.#calls.abort();
    for (const sockets of this.#sockets.values()) sockets.destroy();
    if (this.#client.owned) void this.close();
  }
}

function originOf({ host, port, socketPath }: RequestOptions, protocol: string): string {
  const name = socketPath === undefined ? String(host) : 'localhost';
  return `${protocol}//${/^[^[].*:/.test(name) ? `[${name}]` : name}:${port}`;
}

function parseOrigin(origin: string): URL {
  try {
    return new URL(origin);
  } catch (cause) {
    throw new InvalidRequestError(`not the host and port of a URL: ${shown(origin)}`, { cause });
  }
}
