import type { CallResult } from '../balancing/lease.ts';
import type { ServiceInstance } from '../discovery/service-instance.ts';
import type { Context } from '../policies/context.ts';
import type { ConnectionOptions } from './connections.ts';
import type { Endpoint } from './endpoint.ts';
import type { Answer } from './exchange.ts';
import {
  methodOf,
  type PreparedRequest,
  pathOfUrl,
  type ServiceCall,
  setIdempotencyKey,
} from './service-call.ts';

/** A request that is sent by other means than the connections of a client: what the client has to know of it. */
export interface ForeignRequest extends Pick<ServiceCall, 'service' | 'method' | 'path'> {
  /** Those of its headers that say how it is to be called, names in lower case and values in turn. */
  readonly headers: readonly string[];
}

/** Where such a request may go, for one try. */
export interface Place {
  readonly instance: ServiceInstance;
  readonly endpoint: Endpoint;
  /** How the service's connections are made. */
  readonly connection: ConnectionOptions;
  /** Aborted when the try is to be given up before the head of its answer is there. */
  readonly context: Context;
  /** What goes with the request, as names and values in turn. */
  headers(): readonly string[];
  /** To be told before the first byte is sent: what fails from then on is not tried again. */
  sent(): void;
  /** To be told of the head of the response, before the caller is. Tells whether it is a success. */
  responded(answer: Answer): boolean;
  /** To be told how the body of a success ended. Every other end of the try is known. */
  release(end: CallResult): void;
}

/** The head of an answer, and whether it is a success. */
export interface JudgedAnswer extends Answer {
  readonly stands: boolean;
}

/** Sends a request to its place, and gives the head of the answer. */
export type ForeignSend = (place: Place) => Promise<JudgedAnswer>;

/** @throws InvalidRequestError naming the part that is malformed. */
export function prepareForeign(request: ForeignRequest): PreparedRequest {
  const headers = [...request.headers];
  setIdempotencyKey(headers, {});
  return {
    method: methodOf(request),
    path: pathOfUrl(request.path),
    headers,
    body: null,
    // As long as nothing is sent any place will do.
    replayable: true,
    idempotent: false,
  };
}
