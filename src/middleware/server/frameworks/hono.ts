import type { IncomingMessage, ServerResponse } from 'node:http';
import { RETRIES_SPENT_HEADER } from '../../../client/propagation.ts';
import { AbortScope } from '../../../policies/abort.ts';
import { Admission } from '../guard/admission.ts';
import type { LocalResponse } from '../guard/local-response.ts';
import { type ServerGuard, type ServerGuardOptions, toGuard } from '../guard/server-guard.ts';
import { onServerAbort } from './node-patches.ts';
import { finishedStatus, onResponseClose } from './response-close.ts';
import { WebBody, type WebRequestHolder } from './web-body.ts';
import { storeWebResponse } from './web-response.ts';

/** The part of Hono's context that a guard needs. */
export interface HonoContextLike {
  readonly req: WebRequestHolder & {
    readonly method: string;
    readonly path: string;
    readonly url: string;
    header(): Record<string, string>;
  };
  readonly res: Response;
  readonly error: Error | undefined;
  readonly env: unknown;
  header(name: string, value: string): void;
}

/** The `env` of an application that runs on @hono/node-server. */
interface NodeEnv {
  readonly incoming: IncomingMessage;
  readonly outgoing: ServerResponse;
}

/**
 * A ServerGuard for Hono. Use it first. On @hono/node-server a request counts as in flight until
 * its response is sent, elsewhere until its handler has ended.
 *
 * @example
 * app.use(honoGuard({ maxEventLoopDelay: 100 }));
 */
export function honoGuard(options?: ServerGuard | ServerGuardOptions) {
  const guard = toGuard(options);
  return async (c: HonoContextLike, next: () => Promise<void>): Promise<Response | undefined> => {
    const { method, path } = c.req;
    const disconnected = new AbortScope(undefined, { onAbort() {} });
    const node = nodeEnvOf(c);
    let admission: Admission | undefined;
    let closed = false;
    let stopWatching: (() => void) | undefined;
    if (node !== undefined) {
      onResponseClose(node.incoming, node.outgoing, () => {
        closed = true;
        stopWatching?.();
        disconnected.abort(new Error('the client has disconnected'));
        admission?.finish(finishedStatus(node.outgoing));
        admission?.keyLock?.onClientDisconnect();
      });
    }
    const decision = await guard.admit({
      request: { method, path, headers: c.req.header() },
      get target() {
        const { pathname, search } = new URL(c.req.url);
        return pathname + search;
      },
      disconnected,
      get body() {
        return new WebBody(c.req, node?.incoming);
      },
    });
    if (!(decision instanceof Admission)) return toWebResponse(decision);
    admission = decision;
    const { keyLock, context } = decision;
    if (node !== undefined && keyLock !== undefined && !closed) {
      stopWatching = onServerAbort(node.incoming, node.outgoing, context, () => keyLock.release());
    }
    let status: number | undefined;
    try {
      await admission.run(next);
      status = c.res.status;
      if (c.error !== undefined) admission.recordError(c.error);
      if (admission.shouldMarkRetriesSpent(status)) c.header(RETRIES_SPENT_HEADER, '1');
      if (admission.keyLock !== undefined) await storeWebResponse(c.res, admission.keyLock);
    } catch (error) {
      admission.recordError(error);
      admission.keyLock?.release();
      throw error;
    } finally {
      if (node === undefined || closed) admission.finish(status);
    }
    return undefined;
  };
}

function nodeEnvOf({ env }: HonoContextLike): NodeEnv | undefined {
  const { incoming, outgoing } = (env ?? {}) as Partial<NodeEnv>;
  return incoming === undefined || outgoing === undefined ? undefined : { incoming, outgoing };
}

function toWebResponse({ status, headers, body }: LocalResponse): Response {
  const list = Object.entries(headers).flatMap(([name, value]) =>
    [value].flat().map((item): [string, string] => [name, item]),
  );
  return new Response(body.length === 0 ? null : (body as string), { status, headers: list });
}
