/** A request for something that is not there. */
export class NotFoundError extends Error {
  override readonly name = 'NotFoundError';
}

/** A request that does not go with how things are: another one was faster, or it comes too late. */
export class ConflictError extends Error {
  override readonly name = 'ConflictError';
}

/** A request that makes no sense, whenever it comes. */
export class InvalidError extends Error {
  override readonly name = 'InvalidError';
  readonly issues: readonly Issue[];

  constructor(message: string, issues: readonly Issue[]) {
    super(message);
    this.issues = issues;
  }
}

/** A field that is wrong, by its JSON pointer, and why. */
export interface Issue {
  readonly pointer: string;
  readonly detail: string;
}

/**
 * A request that makes sense and is not granted. It has no effect, and its status says so: after a 409 a
 * saga would retry.
 */
export class RejectedError extends Error {
  override readonly name = 'RejectedError';
}

/** A request of somebody who may not make it. */
export class ForbiddenError extends Error {
  override readonly name = 'ForbiddenError';
}

/** A payment that the bank has declined. */
export class PaymentDeclinedError extends Error {
  override readonly name = 'PaymentDeclinedError';
}

/** A request that failed, and stays so, since another service could not do its part. */
export class DependencyError extends Error {
  override readonly name = 'DependencyError';
}

/** A service that does nothing at present. */
export class UnavailableError extends Error {
  override readonly name = 'UnavailableError';
}
