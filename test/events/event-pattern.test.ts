import { describe, expect, it } from 'vitest';
import { checkEventType, parsePattern, topicOf } from '../../src/events/event-pattern.ts';

describe('the type of an event', () => {
  it.each(['order.created', 'order', 'order.line-item.added_2', 'Order.Created', 'a'.repeat(128)])(
    'the type of an event may be %s',
    (type) => {
      expect(() => checkEventType(type, 'eventType')).not.toThrow();
    },
  );

  it.each([
    '',
    '.',
    'order.',
    '.created',
    'order..created',
    'order created',
    'order.*',
    'order.created\n',
    'bestellung.geändert',
    'a'.repeat(129),
    '{order}.created',
    5,
    undefined,
    null,
  ])('the type of an event may not be %j', (type) => {
    expect(() => checkEventType(type, 'eventType')).toThrow(/^eventType must be the name of a type/);
  });

  it('the topic of a type is the part before its first dot', () => {
    expect(['order.line.added', 'order', 'order.*'].map(topicOf)).toEqual(['order', 'order', 'order']);
  });
});

describe('a pattern', () => {
  it.each([
    ['order.created', ['order.created']],
    ['order.*', ['order.created', 'order.line.added', 'order']],
    ['order', ['order']],
    ['orders.*', []],
  ])('the pattern %s matches %j', (pattern, matching) => {
    const types = ['order.created', 'order.line.added', 'order', 'user.created', 'ordered.created'];
    expect(types.filter(parsePattern(pattern, 'the pattern').matches)).toEqual(matching);
  });

  it.each(['*', '*.created', 'order.line.*', 'order.*.added', 'order*', 'order.**', '', 'order.*\n'])(
    'a pattern may not be %j',
    (pattern) => {
      expect(() => parsePattern(pattern, 'the pattern of subscribe()')).toThrow(TypeError);
      expect(() => parsePattern(pattern, 'the pattern of subscribe()')).toThrow(/^the pattern of subscribe/);
    },
  );
});
