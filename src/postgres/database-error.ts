import { DatabaseError, HoldfastError } from '../errors.ts';

/**
 * SQLSTATEs after which the transaction may succeed if it runs again: all of the classes connection
 * exception, transaction rollback and insufficient resources; and of others, a lock that was not
 * given, a connection that the server ended, and a server that starts or stops.
 */
const RETRYABLE = /^(08|40|53)|^(55P03|57P01|57P02|57P03|25P03|25P04)$/;

/** The codes of Node's sockets, and of postgres.js. */
const CONNECTION_CODES = /^(E[A-Z]{2,}|EAI_[A-Z]+|CONNECTION_[A-Z]+|CONNECT_TIMEOUT)$/;

/** pg gives some errors of connections no code. */
const CONNECTION_MESSAGES =
  /^(Connection terminated|timeout exceeded when trying to connect|Query read timeout|Client has encountered a connection error)/;

/** Messages of the class data exception repeat the value that PostgreSQL could not read. */
const REPEATS_VALUES = /^22/;

/** An undefined table or schema. */
const UNDEFINED = /^(42P01|3F000)$/;

/**
 * Gives any error of a driver as a DatabaseError, and an error of Holdfast as it is. An Executor of
 * one's own throws what this function gives.
 */
export function toDatabaseError(error: unknown): HoldfastError {
  if (error instanceof HoldfastError) return error;
  const sqlState = sqlStateOf(error);
  return new DatabaseError(sqlState === undefined ? messageOf(error) : describe(error, sqlState), {
    cause: error,
    retryable: sqlState === undefined ? isConnectionError(error) : RETRYABLE.test(sqlState),
    sqlState,
  });
}

function describe(error: unknown, sqlState: string): string {
  if (REPEATS_VALUES.test(sqlState)) return `PostgreSQL could not read or compute a value (${sqlState})`;
  const message = messageOf(error);
  const hint =
    UNDEFINED.test(sqlState) && message.includes('"holdfast')
      ? '; run migrate(database) before anything else'
      : '';
  return `PostgreSQL: ${message} (${sqlState})${hint}`;
}

/** The drivers give the SQLSTATE as the `code`; it has five letters and digits, one digit at least. */
function sqlStateOf(error: unknown): string | undefined {
  const code = codeOf(error);
  return code !== undefined && /^(?=.*\d)[0-9A-Z]{5}$/.test(code) ? code : undefined;
}

function isConnectionError(error: unknown): boolean {
  return CONNECTION_CODES.test(codeOf(error) ?? '') || CONNECTION_MESSAGES.test(messageOf(error));
}

function codeOf(error: unknown): string | undefined {
  const code = (error as { code?: unknown } | null | undefined)?.code;
  return typeof code === 'string' ? code : undefined;
}

function messageOf(error: unknown): string {
  // The error of a host name with several addresses has no message of its own.
  if (error instanceof AggregateError) return error.errors.map(messageOf).join(', ');
  return error instanceof Error ? error.message : String(error);
}
