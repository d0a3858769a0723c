import type { IncomingMessage, ServerResponse } from 'node:http';
import { Admission } from '../guard/admission.ts';
import { guardOf, type ServerGuard, type ServerGuardOptions } from '../guard/server-guard.ts';
import type { GivenAnswer } from '../idempotency/stored-response.ts';
import { admitNode } from './node-request.ts';

/** What is needed of a context of Koa. */
export interface KoaContextLike {
  readonly req: IncomingMessage;
  readonly res: ServerResponse;
  readonly request: object;
  readonly response: { readonly headers: GivenAnswer['headers'] };
  /** Whether an answer can still be sent. */
  readonly writable: boolean;
  status: number;
  body: unknown;
  set(headers: { [name: string]: string | string[] }): void;
}

/**
 * A ServerGuard for Koa. Use it first.
 *
 * @example
 * app.use(koaGuard({ maxEventLoopDelay: 100 }));
 */
export function koaGuard(options?: ServerGuard | ServerGuardOptions) {
  const guard = guardOf(options);
  return async (ctx: KoaContextLike, next: () => Promise<unknown>): Promise<void> => {
    const decision = await admitNode(guard, ctx.req, ctx.res, () => (ctx.request as { body?: unknown }).body);
    if (!(decision instanceof Admission)) {
      ctx.status = decision.status;
      ctx.body = Buffer.from(decision.body);
      ctx.set({ ...decision.headers });
      return;
    }
    try {
      await decision.run(next);
      // Koa sends nothing to a client that has gone: the next try is to be told all the same.
      if (!ctx.writable) await keepUnsent(ctx, decision);
    } catch (error) {
      decision.threw(error);
      if (!ctx.writable) decision.hold?.release();
      throw error;
    }
  };
}

async function keepUnsent({ status, body, response }: KoaContextLike, { hold }: Admission): Promise<void> {
  if (hold === undefined) return;
  const bytes = bytesOf(body);
  if (bytes === undefined || bytes.length > hold.maxAnswerSize) hold.release();
  else await hold.complete({ status, headers: response.headers, body: bytes });
}

/** What Koa would send; undefined of a stream. */
function bytesOf(body: unknown): Uint8Array | undefined {
  if (body === null || body === undefined) return new Uint8Array(0);
  if (body instanceof Uint8Array) return body;
  if (typeof body === 'string') return Buffer.from(body);
  const plain = Array.isArray(body) || Object.getPrototypeOf(body)?.constructor === Object;
  return plain ? Buffer.from(JSON.stringify(body)) : undefined;
}
