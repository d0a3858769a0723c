import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Http2ServerRequest, Http2ServerResponse } from 'node:http2';
import { isFunction } from '../../../internal/validate.ts';
import { Admission } from '../guard/admission.ts';
import { GUARD_FAILED, toRejectionResponse } from '../guard/rejection.ts';
import { type Decision, type ServerGuard, type ServerGuardOptions, toGuard } from '../guard/server-guard.ts';
import { admitNodeRequest, sendNodeResponse } from './node-request.ts';

/**
 * A request listener for `createServer` of node:http, node:https or node:http2, with a ServerGuard
 * before it. An error of the handler comes out as it would without a guard. When a function of the
 * options throws, nodeGuard responds with 500, since there is no framework to do it.
 *
 * @throws TypeError if the handler is not a function
 *
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
  isFunction(handler, 'the handler of nodeGuard()');
  const guard = toGuard(options);
  return (request, response) => {
    // The objects of HTTP/2 are made to be used alike.
    const [incoming, outgoing] = [request as IncomingMessage, response as ServerResponse];
    const proceed = (decision: Decision) => {
      if (!(decision instanceof Admission)) return sendNodeResponse(outgoing, decision);
      return runHandler(decision, () => handler(request, response));
    };
    const fail = () => sendNodeResponse(outgoing, toRejectionResponse(GUARD_FAILED));
    let decision: Decision | Promise<Decision>;
    try {
      decision = admitNodeRequest(guard, incoming, outgoing);
    } catch {
      return fail();
    }
    return decision instanceof Promise ? decision.then(proceed, fail) : proceed(decision);
  };
}

function runHandler(admission: Admission, handler: () => unknown): unknown {
  const failed = (error: unknown) => {
    admission.recordError(error);
    admission.keyLock?.release();
    throw error;
  };
  try {
    const result = admission.run(handler);
    return result instanceof Promise ? result.catch(failed) : result;
  } catch (error) {
    return failed(error);
  }
}
