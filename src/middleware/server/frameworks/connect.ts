import type { IncomingMessage, ServerResponse } from 'node:http';
import { Admission } from '../guard/admission.ts';
import { type Decision, type ServerGuard, type ServerGuardOptions, toGuard } from '../guard/server-guard.ts';
import { admitNodeRequest, sendNodeResponse } from './node-request.ts';

/** Middleware for Express 4 and 5, Connect, and others that call `(request, response, next)`. */
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
  const guard = toGuard(options);
  return (request, response, next) => {
    const proceed = (decision: Decision) => {
      if (decision instanceof Admission) decision.run(next);
      else sendNodeResponse(response, decision);
    };
    let decision: Decision | Promise<Decision>;
    try {
      decision = admitNodeRequest(guard, request, response, () => (request as { body?: unknown }).body);
    } catch (error) {
      next(error);
      return;
    }
    if (decision instanceof Promise) decision.then(proceed, next);
    else proceed(decision);
  };
}
