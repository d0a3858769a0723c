import { STATUS_CODES } from 'node:http';
import type { FastifyError, FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import {
  DatabaseError,
  HoldfastError,
  InvalidEventError,
  KeyRevokedError,
  SagaConflictError,
} from '../../src/index.ts';
import {
  ConflictError,
  DependencyError,
  ForbiddenError,
  InvalidError,
  type Issue,
  NotFoundError,
  PaymentDeclinedError,
  RejectedError,
  UnavailableError,
} from './errors.ts';

/**
 * The body of a response that is no success, by RFC 9457. `type` is left out, which stands for
 * `about:blank`: the status says it all.
 */
export interface Problem {
  readonly status: number;
  /** The phrase of the status. */
  readonly title: string;
  /** For people, about this one request. */
  readonly detail: string;
  /** The path of the request. */
  readonly instance: string;
  /** The code of the HoldfastError that led here. */
  readonly code?: string;
  /** The fields that are wrong. */
  readonly errors?: readonly Issue[];
}

const STATUSES = [
  [PaymentDeclinedError, 402],
  [ForbiddenError, 403],
  [NotFoundError, 404],
  [ConflictError, 409],
  [KeyRevokedError, 409],
  [SagaConflictError, 409],
  [InvalidError, 422],
  [RejectedError, 422],
  [DependencyError, 424],
  // A fault of this service: another attempt meets it again.
  [InvalidEventError, 500],
  [UnavailableError, 503],
  // Nobody knows how far it came, but it is worth another attempt.
  [HoldfastError, 503],
] as const;

/** Has every response that is no success be `application/problem+json`. */
export function useProblems(app: FastifyInstance): void {
  app.setErrorHandler(sendProblem);
  app.setNotFoundHandler(({ method, url }) => {
    throw new NotFoundError(`there is no ${method} ${url}`);
  });
}

/** Of a URL that cannot be read, Fastify tells only its option `frameworkErrors`. */
export function sendProblem(error: FastifyError, request: FastifyRequest, reply: FastifyReply): void {
  const problem = toProblem(error, request.url);
  reply.code(problem.status).type('application/problem+json').send(problem);
}

function toProblem(error: Error & Partial<FastifyError>, instance: string): Problem {
  const errors = error instanceof InvalidError ? error.issues : error.validation?.map(toIssue);
  const status = errors === undefined ? statusOf(error) : 422;
  return {
    status,
    title: STATUS_CODES[status]!,
    detail: detailOf(error, status),
    instance,
    code: error instanceof HoldfastError ? error.code : undefined,
    errors,
  };
}

/** Describes an error to a client. What went wrong inside is nobody's business outside. */
function detailOf(error: Error, status: number): string {
  if (status === 500 || error instanceof DatabaseError) return 'Something went wrong here.';
  // The message names paths and instances of another service.
  return error instanceof HoldfastError && error.call !== undefined
    ? `The call to ${error.call.service} failed.`
    : error.message;
}

function statusOf(error: Error & { statusCode?: number }): number {
  if (error instanceof DatabaseError) return error.retryable ? 503 : 500;
  const [, status] = STATUSES.find(([type]) => error instanceof type) ?? [];
  return status ?? error.statusCode ?? 500;
}

function toIssue({
  instancePath,
  message = '',
  params,
}: NonNullable<FastifyError['validation']>[number]): Issue {
  const field = params.missingProperty ?? params.additionalProperty;
  return { pointer: field === undefined ? instancePath : `${instancePath}/${field}`, detail: message };
}
