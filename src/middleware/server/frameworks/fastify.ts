import type { IncomingMessage, ServerResponse } from 'node:http';
import { Admission } from '../guard/admission.ts';
import { type Decision, guardOf, ServerGuard, type ServerGuardOptions } from '../guard/server-guard.ts';
import { admitNode } from './node-request.ts';

/** What is needed of a request of Fastify. */
export interface FastifyRequestLike {
  readonly raw: IncomingMessage;
}

/** What is needed of a reply of Fastify. */
export interface FastifyReplyLike {
  readonly raw: ServerResponse;
  code(status: number): FastifyReplyLike;
  headers(headers: Record<string, unknown>): FastifyReplyLike;
  send(body: unknown): FastifyReplyLike;
}

/** What is needed of an instance of Fastify. */
export interface FastifyLike {
  addHook(
    name: 'onRequest',
    hook: (request: FastifyRequestLike, reply: FastifyReplyLike, done: (error?: Error) => void) => void,
  ): unknown;
  addHook(
    name: 'onError',
    hook: (request: FastifyRequestLike, reply: FastifyReplyLike, error: Error, done: () => void) => void,
  ): unknown;
  addHook(name: 'onClose', hook: () => Promise<void>): unknown;
}

export type FastifyPlugin = (app: FastifyLike, options: unknown, done: () => void) => void;

/**
 * A ServerGuard as a plugin of Fastify, for all routes of the instance that it is registered on. One that it makes
 * itself is closed with that.
 *
 * @example
 * app.register(fastifyGuard({ maxEventLoopDelay: 100 }));
 */
export function fastifyGuard(options?: ServerGuard | ServerGuardOptions): FastifyPlugin {
  const guard = guardOf(options);
  const admissions = new WeakMap<IncomingMessage, Admission>();
  const plugin: FastifyPlugin = (app, _options, done) => {
    app.addHook('onRequest', ({ raw }, reply, next) => {
      const go = (decision: Decision) => {
        if (decision instanceof Admission) {
          admissions.set(raw, decision);
          decision.run(next);
        } else {
          const body = Buffer.from(decision.body);
          reply
            .code(decision.status)
            .headers({ ...decision.headers })
            .send(body);
        }
      };
      let decision: Decision | Promise<Decision>;
      try {
        decision = admitNode(guard, raw, reply.raw);
      } catch (error) {
        next(error as Error);
        return;
      }
      if (decision instanceof Promise) decision.then(go, next);
      else go(decision);
    });
    app.addHook('onError', ({ raw }, _reply, error, next) => {
      admissions.get(raw)?.threw(error);
      next();
    });
    if (!(options instanceof ServerGuard)) app.addHook('onClose', () => guard.close());
    done();
  };
  // As fastify-plugin does: the hooks belong to the instance itself, not to one of the plugin's own.
  return Object.assign(plugin, {
    [Symbol.for('skip-override')]: true,
    [Symbol.for('fastify.display-name')]: 'holdfast',
  });
}
