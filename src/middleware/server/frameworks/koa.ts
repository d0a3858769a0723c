import type { IncomingMessage, ServerResponse } from 'node:http';
import { Admission } from '../guard/admission.ts';
import { type ServerGuard, type ServerGuardOptions, toGuard } from '../guard/server-guard.ts';
import type { HandlerResponse } from '../idempotency/stored-response.ts';
import { admitNodeRequest } from './node-request.ts';

/** The part of Koa's context that a guard needs. */
export interface KoaContextLike {
  readonly req: IncomingMessage;
  readonly res: ServerResponse;
  readonly request: object;
  readonly response: { readonly headers: HandlerResponse['headers'] };
  /** Whether a response can still be sent. */
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
  const guard = toGuard(options);
  return async (ctx: KoaContextLike, next: () => Promise<unknown>): Promise<void> => {
    const decision = await admitNodeRequest(
      guard,
      ctx.req,
      ctx.res,
      () => (ctx.request as { body?: unknown }).body,
    );
    if (!(decision instanceof Admission)) {
      ctx.status = decision.status;
      ctx.body = Buffer.from(decision.body);
      ctx.set({ ...decision.headers });
      return;
    }
    try {
      await decision.run(next);
      // Koa sends nothing to a disconnected client, but the next attempt is to get the response.
      if (!ctx.writable) await storeUnsent(ctx, decision);
    } catch (error) {
      decision.recordError(error);
      if (!ctx.writable) decision.keyLock?.release();
      throw error;
    }
  };
}

async function storeUnsent(
  { status, body, response }: KoaContextLike,
  { keyLock }: Admission,
): Promise<void> {
  if (keyLock === undefined) return;
  const bytes = bytesOf(body);
  if (bytes === undefined || bytes.length > keyLock.maxResponseSize) keyLock.release();
  else await keyLock.complete({ status, headers: response.headers, body: bytes });
}

/** The bytes that Koa would send; undefined for a stream. */
function bytesOf(body: unknown): Uint8Array | undefined {
  if (body === null || body === undefined) return new Uint8Array(0);
  if (body instanceof Uint8Array) return body;
  if (typeof body === 'string') return Buffer.from(body);
  const plain = Array.isArray(body) || Object.getPrototypeOf(body)?.constructor === Object;
  return plain ? Buffer.from(JSON.stringify(body)) : undefined;
}
