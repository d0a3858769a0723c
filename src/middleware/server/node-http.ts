import type { IncomingMessage, ServerResponse } from 'node:http';
import { Admission } from './admission.ts';
import { admitNode, answerNode } from './node-exchange.ts';
import { type Decision, guardOf, type ServerGuard, type ServerGuardOptions } from './server-guard.ts';

/**
 * A request listener for `createServer` of node:http with a ServerGuard before it. What the handler throws, or rejects
 * with, comes out as it would without.
 *
 * @example
 * createServer(nodeGuard({ maxEventLoopDelay: 100 }, (request, response) => response.end('hello')));
 */
export function nodeGuard<Request extends IncomingMessage, Response extends ServerResponse>(
  options: ServerGuard | ServerGuardOptions,
  handler: (request: Request, response: Response) => unknown,
): (request: Request, response: Response) => unknown {
  const guard = guardOf(options);
  return (request, response) => {
    const go = (decision: Decision) => {
      if (!(decision instanceof Admission)) return answerNode(response, decision);
      return observe(decision, response, () => handler(request, response));
    };
    const decision = admitNode(guard, request, response);
    return decision instanceof Promise ? decision.then(go) : go(decision);
  };
}

function observe(admission: Admission, response: ServerResponse, handler: () => unknown): unknown {
  const failed = (error: unknown) => {
    admission.threw(error);
    if (response.closed) admission.hold?.release();
    throw error;
  };
  try {
    const result = admission.run(handler);
    return result instanceof Promise ? result.catch(failed) : result;
  } catch (error) {
    return failed(error);
  }
}
