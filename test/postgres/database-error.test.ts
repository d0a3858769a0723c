import { describe, expect, it } from 'vitest';
import { ClosedError, DatabaseError } from '../../src/errors.ts';
import { toDatabaseError } from '../../src/postgres/index.ts';

const withCode = (code: string, message = 'of the driver') => Object.assign(new Error(message), { code });

describe('toDatabaseError', () => {
  it.each([
    ['a deadlock', withCode('40P01')],
    ['a conflict of serializable transactions', withCode('40001')],
    ['a lock that was not given in time', withCode('55P03')],
    ['a connection that the server ended', withCode('57P01')],
    ['a server that starts', withCode('57P03')],
    ['too many connections', withCode('53300')],
    ['a connection exception', withCode('08006')],
    ['a refused connection', withCode('ECONNREFUSED')],
    ['a name that is not found', withCode('EAI_AGAIN')],
    ['a connection that postgres.js lost', withCode('CONNECTION_CLOSED')],
    ['a connection that pg lost', new Error('Connection terminated unexpectedly')],
    ['a pool without a free connection', new Error('timeout exceeded when trying to connect')],
  ])('%s is retryable', (_, cause) => {
    const error = toDatabaseError(cause);
    expect(error).toBeInstanceOf(DatabaseError);
    expect(error).toMatchObject({ code: 'ERR_DATABASE', retryable: true, cause });
  });

  it.each([
    ['a duplicate key', withCode('23505')],
    ['a syntax error', withCode('42601')],
    ['a wrong password', withCode('28P01')],
    ['a statement that was cancelled', withCode('57014')],
    ['a pool that was ended', new Error('Cannot use a pool after calling end on the pool')],
    ['a wrong argument', new TypeError('Client was passed a null or undefined query')],
    ['a value that is no error', 'failed'],
    ['nothing', undefined],
  ])('%s is not retryable', (_, cause) => {
    expect(toDatabaseError(cause)).toMatchObject({ code: 'ERR_DATABASE', retryable: false, cause });
  });

  it('the SQLSTATE is told apart from the codes of Node', () => {
    expect(toDatabaseError(withCode('23505'))).toMatchObject({ sqlState: '23505' });
    expect(toDatabaseError(withCode('EPIPE'))).toMatchObject({ sqlState: undefined });
  });

  it('the error of a host with several addresses tells of each', () => {
    const causes = ['connect ECONNREFUSED ::1:5432', 'connect ECONNREFUSED 127.0.0.1:5432'];
    const error = Object.assign(new AggregateError(causes.map((message) => new Error(message))), {
      code: 'ECONNREFUSED',
    });
    expect(toDatabaseError(error)).toMatchObject({ message: causes.join(', '), retryable: true });
  });

  it('an error of Holdfast stays as it is', () => {
    const error = new ClosedError('the outbox');
    expect(toDatabaseError(error)).toBe(error);
  });
});
