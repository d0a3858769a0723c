import { ServerClosedError } from '../../../errors.ts';
import { type Check, either, hasMethods } from '../../../internal/validate.ts';
import { nodeServerOf } from './draining-server.ts';

/**
 * A server of node:http, https or http2; an object that has one as `server`, as Fastify has; or
 * anything else whose `close` promises that nothing is in flight there any more.
 */
export interface Closable {
  close(): unknown;
}

/**
 * An application that gives its server of node:http, https or http2, as NestJS does. It is closed when
 * nothing is in flight there any more.
 */
export interface HttpApplication {
  getHttpServer(): unknown;
  close?(): unknown;
}

const serverMethods = either(
  'an object with close() or getHttpServer()',
  hasMethods('close'),
  hasMethods('getHttpServer'),
);

/** Checks that it is a server, or has one, that can be closed. */
export const checkServer: Check = (value, option) => {
  if (isApplication(value)) {
    throw new TypeError(
      `${option} must be a server, and not the application or handler that it serves: give what ` +
        '`http.createServer(app)` or `app.listen()` gives',
    );
  }
  serverMethods(value, option);
  const { getHttpServer } = value as Partial<HttpApplication>;
  if (getHttpServer !== undefined && nodeServerOf(value as object) === undefined) {
    throw new TypeError(`${option}: getHttpServer() must give a server of node:http, https or http2`);
  }
};

/** Whether the value is what a server serves, such as an application of Express, Koa or Hono. */
function isApplication(value: unknown): boolean {
  const { close, getHttpServer, listen, fetch } = Object(value) as Readonly<Record<string, unknown>>;
  if (typeof close === 'function' || typeof getHttpServer === 'function') return false;
  return [value, listen, fetch].some((part) => typeof part === 'function');
}

/** Closes a server of another kind. */
export async function closeOther(server: Closable): Promise<void> {
  try {
    await server.close();
  } catch (error) {
    throw isNotRunning(error) ? new ServerClosedError({ cause: error }) : error;
  }
}

/** Closes an application whose server was stopped before: that is no failure to tell. */
export async function closeStopped(application: Closable | HttpApplication): Promise<void> {
  try {
    await application.close?.();
  } catch (error) {
    if (!isNotRunning(error)) throw error;
  }
}

function isNotRunning(error: unknown): boolean {
  return (error as { code?: unknown } | undefined)?.code === 'ERR_SERVER_NOT_RUNNING';
}
