/**
 * Gives the error without the command that ioredis attaches to it, and without the arguments that
 * Redis repeats where it does not know the command: one of them may be the password.
 */
export function redactArguments(error: unknown): unknown {
  if (!(error instanceof Error)) return error;
  if ('command' in error) delete error.command;
  const [message, ...repeated] = error.message.split(', with args beginning with: ');
  return repeated.length === 0 ? error : Object.assign(new Error(message), { name: error.name });
}

/** Tells whether Redis replied with this error, rather than not at all. */
export function isReplyError(error: unknown): boolean {
  return error instanceof Error && error.name === 'ReplyError';
}

const DENIALS = /^(WRONGPASS|NOAUTH|NOPERM|DENIED|ERR AUTH|ERR invalid password)|user executing the script/;

/** Tells whether Redis denied this client the command, for a wrong password or a missing right. */
export function isDenial(error: unknown): boolean {
  return isReplyError(error) && DENIALS.test((error as Error).message);
}

/** Gives the message of an error. */
export function errorMessage(error: unknown): string {
  // The error of a host name with several addresses has no message of its own.
  if (error instanceof AggregateError) return error.errors.map(errorMessage).join(', ');
  return error instanceof Error ? error.message : String(error);
}
