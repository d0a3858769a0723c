import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Http2ServerRequest, Http2ServerResponse } from 'node:http2';
import { func } from '../../internal/validate.ts';
import { Admission } from './admission.ts';
import { admitNode, answerNode } from './node-exchange.ts';
import { answerOf, GUARD_FAILED } from './refusal.ts';
import { type Decision, guardOf, type ServerGuard, type ServerGuardOptions } from './server-guard.ts';

/**
 * A request listener for `createServer` of node:http, node:https or node:http2, with a ServerGuard before it. What the
 * handler throws, or rejects with, comes out as it would without. What a function of the options throws is answered with
 * 500, since nobody else would.
 *
 * @throws TypeError if the handler is no function.
 * @example
 * createServer(nodeGuard({ maxEventLoopDelay: 100 }, (request, response) => response.end('hello')));
 */
export function nodeGuard<
  Request extends IncomingMessage | Http2ServerRequest = IncomingMessage,
  Response extends ServerResponse | Http2ServerResponse = ServerResponse,
>(
  options: ServerGuard | ServerGuardOptions,
  handler: (request: Request, response: Response) => unknown,
): (request: Request, response: Response) => unknown {
  func(handler, 'the handler of nodeGuard()');
  const guard = guardOf(options);
  return (request, response) => {
    // Those of HTTP/2 are made to be used alike.
    const [incoming, outgoing] = [request as IncomingMessage, response as ServerResponse];
    const go = (decision: Decision) => {
      if (!(decision instanceof Admission)) return answerNode(outgoing, decision);
      return observe(decision, () => handler(request, response));
    };
    const fail = () => answerNode(outgoing, answerOf(GUARD_FAILED));
    let decision: Decision | Promise<Decision>;
    try {
      decision = admitNode(guard, incoming, outgoing);
    } catch {
      return fail();
    }
    return decision instanceof Promise ? decision.then(go, fail) : go(decision);
  };
}

function observe(admission: Admission, handler: () => unknown): unknown {
  const failed = (error: unknown) => {
    admission.threw(error);
    admission.hold?.release();
    throw error;
  };
  try {
    const result = admission.run(handler);
    return result instanceof Promise ? result.catch(failed) : result;
  } catch (error) {
    return failed(error);
  }
}
