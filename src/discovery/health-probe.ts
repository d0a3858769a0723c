import type { Socket } from 'node:net';
import type * as undici from 'undici';
import { TimeoutError } from '../errors.ts';
import { buildConnector, Client } from '../internal/undici.ts';
import { isStalled } from '../policies/outcome.ts';
import { withTimeout } from './operation-timeout.ts';
import { originOf, type ServiceInstance, urlOn } from './service-instance.ts';

/** The result of one check. */
export interface ProbeResult {
  readonly passed: boolean;
  /** The reason of the result, in words for people. */
  readonly reason: string;
  /** The error of the check, if there was one. */
  readonly cause?: unknown;
}

/**
 * Checks an instance once. Rejects if the signal is aborted, or if the check tells nothing of the
 * instance: a check that ran out of time while this process was blocked has neither passed nor
 * failed.
 */
export type Probe = (instance: ServiceInstance, signal: AbortSignal) => Promise<ProbeResult>;

export interface HttpProbeOptions {
  /** The path of the check where the instance has no `healthCheckUrl`. */
  readonly path: string;
  readonly isExpected: (status: number) => boolean;
  /** Milliseconds for the whole check, from the connection to the end of the response. */
  readonly timeout: number;
  readonly connect: undici.buildConnector.BuildOptions | undici.buildConnector.connector;
}

/** The most bytes of a response that are read. The rest does not matter. */
const MAX_BODY = 65_536;
const HEADERS = { 'user-agent': 'holdfast-health-checker', accept: '*/*' };

/**
 * Creates a probe that checks by HTTP. A check passes if the response has an expected status and
 * comes to its end. A redirect is a response like any other; it is not followed. Each check has a
 * connection of its own: the check includes that a connection can be made, and a connection kept
 * from the last check may have been closed since.
 */
export function createHttpProbe({ path, isExpected, timeout, connect }: HttpProbeOptions): Probe {
  const connector = typeof connect === 'function' ? connect : buildConnector({ ...connect, timeout: 0 });
  return async (instance, signal) => {
    const url = urlOn(instance, instance.healthCheckUrl ?? path);
    if (url === undefined) return { passed: false, reason: 'its healthCheckUrl leads elsewhere' };
    let status: number;
    try {
      const request = (inner: AbortSignal) =>
        requestStatus(originOf(instance), url.pathname + url.search, connector, inner);
      status = await withTimeout(timeout, request, signal);
    } catch (cause) {
      signal.throwIfAborted();
      if (isStalled(cause)) throw cause;
      return { passed: false, reason: reasonOf(cause), cause };
    }
    return { passed: isExpected(status), reason: `it responded with ${status}` };
  };
}

async function requestStatus(
  origin: string,
  path: string,
  connector: undici.buildConnector.connector,
  signal: AbortSignal,
): Promise<number> {
  const connect: undici.buildConnector.connector = (options, callback) => {
    // undici's own connectors give the socket, though their types do not say so.
    const socket = connector(options, callback) as unknown as Socket | undefined;
    socket?.unref();
    signal.addEventListener('abort', () => socket?.destroy(), { once: true });
  };
  const client = new Client(origin, { connect, headersTimeout: 0, bodyTimeout: 0 });
  try {
    const { statusCode, body } = await client.request({
      path,
      method: 'GET',
      headers: HEADERS,
      reset: true,
      signal,
    });
    let size = 0;
    for await (const chunk of body) {
      size += chunk.length;
      if (size > MAX_BODY) break;
    }
    return statusCode;
  } finally {
    void client.destroy();
  }
}

function reasonOf(error: unknown): string {
  if (error instanceof TimeoutError) return `it did not respond within ${error.timeout} ms`;
  const { message, code } = error as NodeJS.ErrnoException;
  return message || code || 'it did not respond';
}
