import type { IncomingMessage, ServerResponse } from 'node:http';
import { Admission } from '../guard/admission.ts';
import type { LocalResponse } from '../guard/local-response.ts';
import { CLIENT_GONE, toRejectionResponse } from '../guard/rejection.ts';
import { type Decision, ServerGuard, type ServerGuardOptions, toGuard } from '../guard/server-guard.ts';
import { admitNodeRequest } from './node-request.ts';

/** The part of Fastify's request that a guard needs. */
export interface FastifyRequestLike {
  readonly raw: IncomingMessage;
}

/** The part of Fastify's reply that a guard needs. */
export interface FastifyReplyLike {
  readonly raw: ServerResponse;
  code(status: number): FastifyReplyLike;
  headers(headers: Record<string, unknown>): FastifyReplyLike;
  send(body: unknown): FastifyReplyLike;
}

/** The part of a Fastify instance that a guard needs. */
export interface FastifyLike {
  addHook(
    name: 'onRequest',
    hook: (request: FastifyRequestLike, reply: FastifyReplyLike, done: (error?: Error) => void) => void,
  ): unknown;
  addHook(
    name: 'preParsing',
    hook: (request: FastifyRequestLike, reply: FastifyReplyLike, payload: unknown, done: () => void) => void,
  ): unknown;
  addHook(
    name: 'onError',
    hook: (request: FastifyRequestLike, reply: FastifyReplyLike, error: Error, done: () => void) => void,
  ): unknown;
  addHook(name: 'onClose', hook: () => Promise<void>): unknown;
}

export type FastifyPlugin = (app: FastifyLike, options: unknown, done: () => void) => void;

/**
 * A ServerGuard as a plugin of Fastify, for all routes of the instance that it is registered on. A
 * guard that the plugin makes itself is closed with the instance.
 *
 * @example
 * app.register(fastifyGuard({ maxEventLoopDelay: 100 }));
 */
export function fastifyGuard(options?: ServerGuard | ServerGuardOptions): FastifyPlugin {
  const guard = toGuard(options);
  const admissions = new WeakMap<IncomingMessage, Admission>();
  const plugin: FastifyPlugin = (app, _options, done) => {
    app.addHook('onRequest', ({ raw }, reply, next) => {
      const proceed = (decision: Decision) => {
        if (decision instanceof Admission) {
          admissions.set(raw, decision);
          decision.run(next);
        } else {
          sendLocalResponse(reply, decision);
        }
      };
      let decision: Decision | Promise<Decision>;
      try {
        decision = admitNodeRequest(guard, raw, reply.raw);
      } catch (error) {
        next(error as Error);
        return;
      }
      if (decision instanceof Promise) decision.then(proceed, next);
      else proceed(decision);
    });
    app.addHook('preParsing', ({ raw }, reply, _payload, next) => {
      const admission = admissions.get(raw);
      if (admission?.keyLock === undefined || !admission.isFinished) {
        next();
        return;
      }
      // Fastify would wait forever for the end of the body, and the key stay locked. The handler
      // has not begun.
      admission.keyLock.release();
      sendLocalResponse(reply, toRejectionResponse(CLIENT_GONE));
    });
    app.addHook('onError', ({ raw }, _reply, error, next) => {
      admissions.get(raw)?.recordError(error);
      next();
    });
    if (!(options instanceof ServerGuard)) app.addHook('onClose', () => guard.close());
    done();
  };
  // As with fastify-plugin, the hooks belong to the instance, not to a context of the plugin.
  return Object.assign(plugin, {
    [Symbol.for('skip-override')]: true,
    [Symbol.for('fastify.display-name')]: 'holdfast',
  });
}

function sendLocalResponse(reply: FastifyReplyLike, { status, headers, body }: LocalResponse): void {
  reply
    .code(status)
    .headers({ ...headers })
    .send(Buffer.from(body));
}
