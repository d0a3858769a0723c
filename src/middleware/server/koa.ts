import type { IncomingMessage, ServerResponse } from 'node:http';
import { Admission } from './admission.ts';
import { admitNode } from './node-exchange.ts';
import { guardOf, type ServerGuard, type ServerGuardOptions } from './server-guard.ts';

/** What is needed of a context of Koa. */
export interface KoaContextLike {
  readonly req: IncomingMessage;
  readonly res: ServerResponse;
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
    const decision = await admitNode(guard, ctx.req, ctx.res);
    if (!(decision instanceof Admission)) {
      ctx.status = decision.status;
      ctx.body = Buffer.from(decision.body);
      ctx.set({ ...decision.headers });
      return;
    }
    try {
      await decision.run(next);
    } catch (error) {
      decision.threw(error);
      throw error;
    }
  };
}
