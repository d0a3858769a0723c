import type { IncomingMessage, ServerResponse } from 'node:http';
import { Admission } from '../guard/admission.ts';
import { type Decision, guardOf, type ServerGuard, type ServerGuardOptions } from '../guard/server-guard.ts';
import { admitNode, answerNode } from './node-request.ts';

/** Middleware for Express 4 and 5, Connect, and whatever else calls `(request, response, next)`. */
export type ConnectMiddleware = (
  request: IncomingMessage,
  response: ServerResponse,
  next: (error?: unknown) => void,
) => void;

/**
 * A ServerGuard for Express and Connect. Mount it first.
 *
 * @example
 * app.use(connectGuard({ maxEventLoopDelay: 100 }));
 */
export function connectGuard(options?: ServerGuard | ServerGuardOptions): ConnectMiddleware {
  const guard = guardOf(options);
  return (request, response, next) => {
    const go = (decision: Decision) => {
      if (decision instanceof Admission) decision.run(next);
      else answerNode(response, decision);
    };
    let decision: Decision | Promise<Decision>;
    try {
      decision = admitNode(guard, request, response, () => (request as { body?: unknown }).body);
    } catch (error) {
      next(error);
      return;
    }
    if (decision instanceof Promise) decision.then(go, next);
    else go(decision);
  };
}
