import { describe, expect, it } from 'vitest';
import { CONNECT_OPTIONS, checkExternalOptions } from '../../src/internal/external-options.ts';

describe('the options of Node or undici', () => {
  const check = (value: unknown) => () =>
    checkExternalOptions(value, "the option 'connect'", CONNECT_OPTIONS);

  it('are let through where they are known, or like none that is', () => {
    const own = { ca: 'x', rejectUnauthorized: false, servername: 'a', somethingNew: 1 };
    expect(check(own)).not.toThrow();
    expect(check({})).not.toThrow();
  });

  it.each([
    ['rejectUnauthorised', 'rejectUnauthorized'],
    ['serverName', 'servername'],
    ['socketpath', 'socketPath'],
    ['keepalive', 'keepAlive'],
  ])('are not called %s: %s may have been meant', (name, meant) => {
    expect(check({ [name]: 1 })).toThrow(
      new TypeError(`the option 'connect' has no '${name}': did you mean '${meant}'?`),
    );
  });

  it.each([null, 5, new Map(), [], Promise.resolve({})])('are an object with fields; %o is none', (value) => {
    expect(check(value)).toThrow(TypeError);
  });
});
