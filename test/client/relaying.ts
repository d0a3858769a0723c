import type { Dispatcher } from 'undici';
import { onTestFinished } from 'vitest';
import type { Candidate } from '../../src/balancing/strategy.ts';
import { engineOf } from '../../src/client/call-engine.ts';
import { relay as relayThrough } from '../../src/client/relay.ts';
import type { RelayRequest } from '../../src/client/relay-request.ts';
import {
  Bulkhead,
  LoadBalancer,
  ServiceClient,
  type ServiceOptions,
  StaticServiceDiscovery,
} from '../../src/index.ts';
import { service } from '../support/mesh-client.ts';
import type { TestServer } from '../support/server.ts';

type Controller = Dispatcher.DispatchController;

/** The record of what a handler of undici was told, in order, and how it ended. */
export interface Recorded {
  readonly handler: Dispatcher.DispatchHandler;
  readonly events: string[];
  readonly controller: Controller;
  readonly status: number;
  readonly headers: Record<string, string | string[] | undefined>;
  readonly body: string;
  /** Resolves at the end with the error, or undefined if it ended well. */
  readonly end: Promise<Error | undefined>;
}

/** Builds a handler that records what it is told, and then does what the given handler does. */
export function recorder(own: Dispatcher.DispatchHandler = {}): Recorded {
  const events: string[] = [];
  const chunks: Buffer[] = [];
  let resolve: (error: Error | undefined) => void = () => {};
  const end = new Promise<Error | undefined>((settle) => {
    resolve = settle;
  });
  const recorded = {
    events,
    end,
    controller: undefined as unknown as Controller,
    status: 0,
    headers: {},
    get body() {
      return Buffer.concat(chunks).toString();
    },
    handler: {
      onRequestStart(controller, context) {
        events.push('start');
        recorded.controller = controller;
        own.onRequestStart?.(controller, context);
      },
      onResponseStart(controller, status, headers, statusText) {
        events.push(`head ${status}`);
        recorded.status = status;
        recorded.headers = headers;
        own.onResponseStart?.(controller, status, headers, statusText);
      },
      onResponseData(controller, chunk) {
        events.push('data');
        chunks.push(chunk);
        own.onResponseData?.(controller, chunk);
      },
      onResponseEnd(controller, trailers) {
        events.push('end');
        own.onResponseEnd?.(controller, trailers);
        resolve(undefined);
      },
      onResponseError(controller, error) {
        events.push('error');
        own.onResponseError?.(controller, error);
        resolve(error);
      },
    } satisfies Dispatcher.DispatchHandler,
  };
  return recorded;
}

export interface Mesh {
  readonly client: ServiceClient;
  /**
   * Counts the calls that hold a lease of the balancer, and the calls that hold a place in the
   * bulkhead.
   */
  underWay(): { leases: number; places: number };
}

/** Builds a client of one service with the given instances, which tells what it holds. */
export function meshOf(servers: Pick<TestServer, 'origin'>[], options: ServiceOptions = {}): Mesh {
  const discovery = new StaticServiceDiscovery({ [service]: servers.map(({ origin }) => origin) });
  const loadBalancer = new LoadBalancer({ discovery });
  const candidates: Candidate[] = [];
  loadBalancer.on('join', ({ candidate }) => void candidates.push(candidate));
  const bulkhead = new Bulkhead({ maxConcurrent: 1_024 });
  const client = new ServiceClient({
    loadBalancer,
    defaults: { retry: { backoff: () => 0 }, bulkhead, ...options },
  });
  onTestFinished(async () => {
    await client.close();
    loadBalancer.close();
  });
  return {
    client,
    underWay: () => ({
      leases: candidates.reduce((sum, { inFlight }) => sum + inFlight, 0),
      places: bulkhead.inFlight,
    }),
  };
}

/** Sends a request through a client as its adapters do. */
export function relay(
  client: ServiceClient,
  request: RelayRequest,
  handler: Dispatcher.DispatchHandler,
): void {
  relayThrough(engineOf(client), request, handler);
}
