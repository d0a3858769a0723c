import type { RejectionCode } from '../middleware/server/guard/rejection.ts';
import type { ServerGuardEvents } from '../middleware/server/guard/server-guard.ts';
import type { GracefulShutdownEvents } from '../middleware/server/lifecycle/graceful-shutdown.ts';
import type { HealthEvents, HealthStatus } from '../middleware/server/lifecycle/health.ts';
import { counted, errorFields, type Lines, line } from './line.ts';
import type { LogLevel } from './logger.ts';

/** Levels of rejections that say something of the service. The others are mistakes of clients. */
const REJECTION_LEVELS: Readonly<Partial<Record<RejectionCode, LogLevel>>> = {
  ERR_OVERLOADED: 'warn',
  ERR_DEADLINE_EXCEEDED: 'warn',
  ERR_IDENTITY_UNAVAILABLE: 'error',
  ERR_IDEMPOTENCY_UNAVAILABLE: 'error',
  ERR_COMPENSATES_KEY_UNSUPPORTED: 'error',
  ERR_GUARD_FAILED: 'error',
};

const errorOf = ({ error }: { error: unknown }) => errorFields(error);

export const SERVER_GUARD: Lines<ServerGuardEvents> = {
  reject: counted(
    ({ rejection: { code } }) => REJECTION_LEVELS[code] ?? 'debug',
    'requests rejected',
    ({ rejection: { status, code }, request }) => ({
      status,
      code,
      method: request.method,
      path: request.path,
    }),
    ({ rejection }) => rejection.code,
  ),
  replay: undefined,
  'idempotency-error': counted('error', 'idempotency store failed', errorOf),
  'lock-lost': counted('warn', 'idempotency lock lost while a request was handled', ({ request }) => ({
    ...request,
  })),
  'decision-error': counted('error', 'guard failed to decide', ({ error, request }) => ({
    ...request,
    ...errorFields(error),
  })),
};

const STATUS_LEVELS: Readonly<Record<HealthStatus, LogLevel>> = { pass: 'info', warn: 'warn', fail: 'error' };

export const HEALTH: Lines<HealthEvents> = {
  change: line(
    ({ to }) => STATUS_LEVELS[to],
    'health changed',
    ({ from, to, reasons, error }) => ({ from, to, reasons, ...errorFields(error) }),
  ),
};

export const GRACEFUL_SHUTDOWN: Lines<GracefulShutdownEvents> = {
  begin: line('info', 'shutdown begun', ({ reason }) => ({ reason })),
  failure: line('error', 'shutdown step failed', ({ step, error }) => ({ step, ...errorFields(error) })),
  cut: line('warn', 'requests cut off by the shutdown', ({ requests }) => ({ requests })),
  end: line('info', 'shutdown done', ({ reason, cut, failures, duration }) => ({
    reason,
    cut,
    failures: failures.length,
    duration: Math.round(duration),
  })),
};

/** The events of the gateway, whose room this one does not import. */
interface GatewayEvents {
  reload: [{ routes: number }];
  'reload-failure': [{ error: unknown }];
  failure: [
    {
      status: number;
      code: string;
      method: string;
      path: string;
      service: string | undefined;
      error: unknown;
    },
  ];
}

export const GATEWAY: Lines<GatewayEvents> = {
  reload: line('info', 'gateway configuration in force', ({ routes }) => ({ routes })),
  'reload-failure': line('error', 'gateway configuration rejected: the old one stays', errorOf),
  failure: counted(
    'error',
    'requests failed at the gateway',
    ({ status, code, method, path, service, error }) => ({
      ...(service !== undefined && { service }),
      status,
      problem: code,
      method,
      path,
      ...errorFields(error),
    }),
    ({ service, code }) => `${service} ${code}`,
  ),
};

interface GatewayFileEvents {
  reload: [{ file: string; ignored: readonly string[] }];
  failure: [{ file: string; error: Error }];
}

export const GATEWAY_FILE: Lines<GatewayFileEvents> = {
  reload: line(
    ({ ignored }) => (ignored.length === 0 ? 'info' : 'warn'),
    'gateway file taken over',
    ({ file, ignored }) => ({ file, ignored }),
  ),
  failure: line('error', 'gateway file not used: the old configuration stays', ({ file, error }) => ({
    file,
    ...errorFields(error),
  })),
};

interface RedisRateLimiterEvents {
  unavailable: [{ error: unknown }];
  available: [unknown];
}

export const REDIS_RATE_LIMITER: Lines<RedisRateLimiterEvents> = {
  unavailable: line('warn', 'rate limits counted in this process alone', errorOf),
  available: line('info', 'rate limits counted in Redis again'),
};
