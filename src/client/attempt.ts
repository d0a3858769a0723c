import type { Dispatcher } from 'undici';
import type { Lease } from '../balancing/lease.ts';
import type { ServiceInstance } from '../discovery/service-instance.ts';
import type { Context } from '../policies/context.ts';
import { type CallState, mayBeSentTwice } from './call-state.ts';
import type { AttemptHandler } from './connections.ts';
import type { InstanceClient } from './instance-client.ts';
import { headersToSend } from './outgoing-headers.ts';
import type { ResponseHead } from './response.ts';
import type { ServicePolicies } from './service-policies.ts';

/** One sending of a call to one instance, as a transport needs to know it. */
export class Attempt {
  readonly call: CallState;
  readonly policies: ServicePolicies;
  readonly lease: Lease;
  /** client holds the connections to the instance. */
  readonly client: InstanceClient;
  /**
   * context is aborted when the attempt must be given up before the head of the response is there.
   */
  readonly context: Context;
  /**
   * startedAt is when the attempt was given its place on the instance, on the clock of the client.
   */
  readonly startedAt: number;

  constructor(
    call: CallState,
    policies: ServicePolicies,
    lease: Lease,
    client: InstanceClient,
    context: Context,
  ) {
    this.call = call;
    this.policies = policies;
    this.lease = lease;
    this.client = client;
    this.context = context;
    this.startedAt = policies.clock.now();
  }

  /** The milliseconds since it was given its place. */
  get elapsed(): number {
    return Math.max(0, this.policies.clock.now() - this.startedAt);
  }

  get instance(): ServiceInstance {
    return this.lease.instance;
  }

  /**
   * Builds the headers of the request, names and values in turn, with the time that is left at
   * `now`.
   */
  buildHeaders(now: number = this.startedAt): string[] {
    return headersToSend(this.call, this.context.deadline, now);
  }

  /** Sends the request over one of the client's connections to the instance. */
  dispatch(options: Dispatcher.DispatchOptions, handler: AttemptHandler): void {
    this.client.connections.dispatch(options, handler, mayBeSentTwice(this.call));
  }

  /** Whether a response counts as a success. */
  judge(response: ResponseHead): boolean {
    return this.policies.isSuccess(response);
  }

  /**
   * Drops what the cache keeps of the path. It is called before the caller learns of the response,
   * and may read again.
   */
  invalidateCache(): void {
    this.policies.invalidateAfter(this.call);
  }
}
