import type { IncomingMessage, ServerResponse } from 'node:http';
import { RETRIES_SPENT_HEADER } from '../../../client/propagation.ts';
import { AbortScope } from '../../../policies/abort.ts';
import { Admission } from '../guard/admission.ts';
import type { ReadyAnswer } from '../guard/local-response.ts';
import { guardOf, type ServerGuard, type ServerGuardOptions } from '../guard/server-guard.ts';
import { finishedStatus, whenClosed } from './response-close.ts';
import { WebBody, type WebRequestHolder } from './web-body.ts';
import { keepResponse } from './web-response.ts';
import { whenBrokenOff } from './when-broken-off.ts';

/** What is needed of a context of Hono. */
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

/** Where the application runs on @hono/node-server. */
interface NodeEnv {
  readonly incoming: IncomingMessage;
  readonly outgoing: ServerResponse;
}

/**
 * A ServerGuard for Hono. Use it first. On @hono/node-server a request counts as under way until its answer is sent,
 * elsewhere until its handler has ended.
 *
 * @example
 * app.use(honoGuard({ maxEventLoopDelay: 100 }));
 */
export function honoGuard(options?: ServerGuard | ServerGuardOptions) {
  const guard = guardOf(options);
  return async (c: HonoContextLike, next: () => Promise<void>): Promise<Response | undefined> => {
    const { method, path } = c.req;
    const gone = new AbortScope(undefined, { onAbort() {} });
    const node = nodeEnvOf(c);
    let admission: Admission | undefined;
    let closed = false;
    let stopWatching: (() => void) | undefined;
    if (node !== undefined) {
      whenClosed(node.incoming, node.outgoing, () => {
        closed = true;
        stopWatching?.();
        gone.abort(new Error('the client has gone'));
        admission?.finish(finishedStatus(node.outgoing));
        admission?.hold?.clientGone();
      });
    }
    const decision = await guard.admit({
      request: { method, path, headers: c.req.header() },
      get target() {
        const { pathname, search } = new URL(c.req.url);
        return pathname + search;
      },
      gone,
      get body() {
        return new WebBody(c.req);
      },
    });
    if (!(decision instanceof Admission)) return responseOf(decision);
    admission = decision;
    const { hold, context } = decision;
    if (node !== undefined && hold !== undefined && !closed) {
      stopWatching = whenBrokenOff(node.incoming, node.outgoing, context, () => hold.release());
    }
    let status: number | undefined;
    try {
      await admission.run(next);
      status = c.res.status;
      if (c.error !== undefined) admission.threw(c.error);
      if (admission.retriesSpent(status)) c.header(RETRIES_SPENT_HEADER, '1');
      if (admission.hold !== undefined) await keepResponse(c.res, admission.hold);
    } catch (error) {
      admission.threw(error);
      admission.hold?.release();
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

function responseOf({ status, headers, body }: ReadyAnswer): Response {
  const list = Object.entries(headers).flatMap(([name, value]) =>
    [value].flat().map((item): [string, string] => [name, item]),
  );
  return new Response(body.length === 0 ? null : (body as string), { status, headers: list });
}
