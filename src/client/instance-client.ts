import { isIP } from 'node:net';
import type { Lease } from '../balancing/lease.ts';
import type { Candidate } from '../balancing/strategy.ts';
import { originOf, type ServiceInstance } from '../discovery/service-instance.ts';
import {
  type Labels,
  OBSERVE,
  type Observation,
  Observations,
  observePart,
} from '../internal/observation.ts';
import type { Policy } from '../policies/policy.ts';
import { type ConnectionOptions, Connections } from './connections.ts';
import { composeForInstance, type InstancePolicies } from './pipeline.ts';
import type { ServicePolicies } from './service-policies.ts';

/** Holds the connections to one instance, and the policies that guard it. */
export class InstanceClient {
  /** The host and port that requests ask for. */
  readonly authority: string;
  readonly connections: Connections;
  /**
   * policy guards each attempt on this instance: bulkhead and limiter, then the attempt timeout.
   */
  readonly policy: Policy;
  readonly #guards: InstancePolicies;
  readonly #labels: Labels;
  /** others hold further connections to the instance, and are closed with these. */
  readonly others = new Set<{ close(): Promise<void> }>();
  #attempts = 0;
  #whenClosed: (() => void) | undefined = undefined;

  constructor(instance: ServiceInstance, guards: InstancePolicies, options: ConnectionOptions) {
    this.connections = new Connections(originOf(instance), options, tlsNameOf(instance, options));
    this.authority = authorityOf(instance, options);
    this.policy = composeForInstance(guards);
    this.#guards = guards;
    const { serviceName, instanceId } = instance;
    this.#labels = { service: serviceName, instanceId };
  }

  [OBSERVE](observation: Observation, labels: Labels): void {
    const own = { ...this.#labels, ...labels };
    observePart(this.#guards.bulkhead, observation, own);
    observePart(this.#guards.adaptiveConcurrency, observation, own);
  }

  enter(): void {
    this.#attempts++;
  }

  leave(): void {
    this.#attempts--;
    this.#closeWhenDone();
  }

  /**
   * Closes the connections once the attempts that use them are done, and tells when they are
   * closed.
   */
  retire(whenClosed: () => void): void {
    this.#whenClosed = whenClosed;
    this.#closeWhenDone();
  }

  #closeWhenDone(): void {
    if (this.#whenClosed !== undefined && this.#attempts === 0) void this.close().then(this.#whenClosed);
  }

  /**
   * Closes the connections; resolves when the calls under way on them, streamed bodies included,
   * are done.
   */
  async close(): Promise<void> {
    await Promise.all([this.connections.close(), ...Array.from(this.others, (other) => other.close())]);
  }
}

/**
 * Holds the clients of all instances that calls were sent to. It keeps the client of an instance
 * that has left until the attempts under way there are done.
 */
export class InstanceClients {
  readonly #clients = new Map<Candidate, InstanceClient>();
  /** #retired holds the clients of instances that have left. */
  readonly #retired = new Set<InstanceClient>();

  readonly #observations = new Observations();

  [OBSERVE](observation: Observation, labels: Labels): void {
    this.#observations.add(observation, labels);
    for (const client of this.#clients.values()) client[OBSERVE](observation, labels);
  }

  /** Gives the client of the instance of a lease, made with the policies of its service. */
  get({ candidate, instance }: Lease, policies: ServicePolicies): InstanceClient {
    let client = this.#clients.get(candidate);
    if (client === undefined) {
      client = new InstanceClient(instance, policies.createInstancePolicies(), policies.connection);
      this.#observations.passTo(client);
      this.#clients.set(candidate, client);
    }
    return client;
  }

  /** Closes the client of an instance that has left, once its attempts are done. */
  retire(candidate: Candidate): void {
    const client = this.#clients.get(candidate);
    if (client === undefined) return;
    this.#clients.delete(candidate);
    this.#retired.add(client);
    client.retire(() => this.#retired.delete(client));
  }

  /** Closes all clients; resolves when the bodies under way have ended. */
  async close(): Promise<void> {
    const clients = [...this.#clients.values(), ...this.#retired];
    await Promise.all(clients.map((client) => client.close()));
    this.#clients.clear();
  }
}

/**
 * Gives the name that TLS uses for an instance: that of its virtual host, or of its service where the
 * instance is registered by its address, for which certificates are usually not issued. With undefined
 * it is the host name by which the instance is registered.
 */
export function tlsNameOf(
  { host, serviceName }: ServiceInstance,
  connection: ConnectionOptions = {},
): string | undefined {
  const virtual = connection.host?.replace(/:\d+$/, '');
  if (virtual !== undefined && !virtual.startsWith('[') && isIP(virtual) === 0) return virtual;
  return isIP(host) === 0 ? undefined : serviceName;
}

/** Gives the host and port that requests to an instance ask for. */
function authorityOf(instance: ServiceInstance, { host }: ConnectionOptions): string {
  return host ?? new URL(originOf(instance)).host;
}
