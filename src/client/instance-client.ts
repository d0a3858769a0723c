import { isIP } from 'node:net';
import type { Lease } from '../balancing/lease.ts';
import type { Candidate } from '../balancing/strategy.ts';
import { originOf, type ServiceInstance } from '../discovery/service-instance.ts';
import type { Policy } from '../policies/policy.ts';
import { type ConnectionOptions, Connections } from './connections.ts';
import type { ServicePolicies } from './service-policies.ts';

/** The connections to one instance, and the policies that guard it. */
export class InstanceClient {
  readonly connections: Connections;
  /** Around each attempt on this instance: bulkhead, then attempt timeout. */
  readonly policy: Policy;
  /** What else holds connections to the instance, to be closed with these. */
  readonly others = new Set<{ close(): Promise<void> }>();
  #attempts = 0;
  #whenClosed: (() => void) | undefined = undefined;

  constructor(instance: ServiceInstance, policy: Policy, options: ConnectionOptions) {
    this.connections = new Connections(originOf(instance), options, tlsNameOf(instance));
    this.policy = policy;
  }

  enter(): void {
    this.#attempts++;
  }

  leave(): void {
    this.#attempts--;
    this.#closeWhenDone();
  }

  /** Closes the connections once the attempts that hold on to them are done, and tells when they are closed. */
  retire(whenClosed: () => void): void {
    this.#whenClosed = whenClosed;
    this.#closeWhenDone();
  }

  #closeWhenDone(): void {
    if (this.#whenClosed !== undefined && this.#attempts === 0) void this.close().then(this.#whenClosed);
  }

  /** Resolves when what is under way on the connections, streamed bodies included, is done. */
  async close(): Promise<void> {
    await Promise.all([this.connections.close(), ...Array.from(this.others, (other) => other.close())]);
  }
}

/** The clients of all instances that calls were sent to, until those that have left are done. */
export class InstanceClients {
  readonly #clients = new Map<Candidate, InstanceClient>();
  /** The clients of instances that have left, until the attempts under way there are done. */
  readonly #retired = new Set<InstanceClient>();

  /** The client of the instance of a lease, made by the policies of its service. */
  get({ candidate, instance }: Lease, policies: ServicePolicies): InstanceClient {
    let client = this.#clients.get(candidate);
    if (client === undefined) {
      client = new InstanceClient(instance, policies.createInstancePolicy(), policies.connection);
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

  /** Resolves when the bodies under way have ended. */
  async close(): Promise<void> {
    const clients = [...this.#clients.values(), ...this.#retired];
    await Promise.all(clients.map((client) => client.close()));
    this.#clients.clear();
  }
}

/**
 * What TLS calls an instance: by the name of its service where it is registered by its address, which certificates are not
 * made out for as a rule. One that is registered by its host name is called by that.
 */
export function tlsNameOf({ host, serviceName }: ServiceInstance): string | undefined {
  return isIP(host) === 0 ? undefined : serviceName;
}
