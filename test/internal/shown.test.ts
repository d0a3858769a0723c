import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { connectionOptions } from '../../src/client/connections.ts';
import {
  ConcurrencyError,
  EventsDroppedError,
  EventsMissingError,
  GroupInUseError,
  InstanceReplacedError,
  KeyRevokedError,
  NoInstanceError,
  OutboxBehindError,
  RetryBudgetExhausted,
  SagaConflictError,
  SagaNotFoundError,
  SagaUnreadableError,
  StreamFullError,
} from '../../src/errors.ts';
import { shown } from '../../src/internal/shown.ts';

const INVISIBLE = /[\p{C}\p{Zl}\p{Zp}]/u;

const anyText = fc
  .array(fc.nat(0x10ffff), { maxLength: 60 })
  .map((points) => String.fromCodePoint(...points));

describe('shown()', () => {
  it.each([
    ['users', "'users'"],
    ['Grüße, 世界 🙂', "'Grüße, 世界 🙂'"],
    ["it's \\", String.raw`'it\'s \\'`],
    ['a\r\nb\tc', String.raw`'a\r\nb\tc'`],
    ['\u001b[31m\u0085\u202e\u2028\ud800', String.raw`'\u{1b}[31m\u{85}\u{202e}\u{2028}\u{d800}'`],
    ['a'.repeat(201), `'${'a'.repeat(200)}…'`],
    [12n, '12n'],
    [null, 'null'],
    [new Map(), 'a Map'],
    [new AbortController(), 'an AbortController'],
    [{ constructor: { name: 'x\n\u001b[31mERROR' } }, 'an object'],
    [{ constructor: { name: 'x'.repeat(101) } }, 'an object'],
    [Symbol("it's\n"), String.raw`Symbol('it\'s\n')`],
    [Symbol('a'.repeat(201)), `Symbol('${'a'.repeat(200)}…')`],
  ])('shows %o as %s', (value, expected) => {
    expect(shown(value)).toBe(expected);
  });

  it('shows any text on one line, without control characters, and no two texts alike', () => {
    const property = fc.property(anyText, anyText, (one, other) => {
      expect(shown(one)).not.toMatch(INVISIBLE);
      expect(shown(one) === shown(other)).toBe(one === other);
    });
    fc.assert(property, { numRuns: 200 });
  });

  it('shows no control character of the kind of an object, and of the description of a symbol', () => {
    const property = fc.property(anyText, (text) => {
      for (const value of [{ constructor: { name: text } }, Symbol(text)]) {
        expect(shown(value)).not.toMatch(INVISIBLE);
      }
    });
    fc.assert(property);
  });
});

describe('the errors that are given a name, a key or an id', () => {
  const makers: Record<string, (text: string) => Error> = {
    ConcurrencyError: (text) => new ConcurrencyError(text, 1, 2),
    EventsDroppedError: (text) => new EventsDroppedError(text, 0),
    EventsMissingError: (text) => new EventsMissingError(text, 0, 1n),
    GroupInUseError: (text) => new GroupInUseError(text),
    InstanceReplacedError: (text) => new InstanceReplacedError(text, text),
    KeyRevokedError: (text) => new KeyRevokedError(text),
    NoInstanceError: (text) => new NoInstanceError(text),
    OutboxBehindError: (text) => new OutboxBehindError(text, 0, 2n, 1n),
    RetryBudgetExhausted: (text) => new RetryBudgetExhausted(text),
    SagaConflictError: (text) => new SagaConflictError(text),
    SagaNotFoundError: (text) => new SagaNotFoundError(text),
    SagaUnreadableError: (text) => new SagaUnreadableError(text),
    StreamFullError: (text) => new StreamFullError(text, 0, 1, text),
  };

  it.each(Object.entries(makers))(
    'the message of a %s shows any such text as shown() does',
    (_name, make) => {
      const property = fc.property(anyText, (text) => {
        expect(make(text).message).toContain(shown(text));
        expect(make(text).message).not.toMatch(INVISIBLE);
      });
      fc.assert(property, { numRuns: 30 });
    },
  );
});

it('the host of a connection is shown without the line breaks that it must not have', () => {
  const check = () => connectionOptions({ host: 'shop.example\r\nx-admin: 1' }, "option 'connection'");
  expect(check).toThrow(/'host', must be a host, .*; got 'shop\.example\\r\\nx-admin: 1'$/);
});
