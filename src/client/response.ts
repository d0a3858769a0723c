import type { Readable } from 'node:stream';

export type ResponseHeaders = Record<string, string | string[] | undefined>;

/** The head of a response. */
export interface ResponseHead {
  readonly status: number;
  readonly headers: ResponseHeaders;
  /** The instance that sent the response. */
  readonly instanceId: string;
}

/**
 * A response whose body is still to come. Read the body to its end or destroy it: until then it
 * holds a connection.
 */
export interface ServiceResponse extends ResponseHead {
  readonly body: Readable;
}
