import { BlockList, isIP, isIPv6 } from 'node:net';
import { MAX_DELAY } from '../../internal/validate.ts';
import { SCOPE } from '../auth/auth-options.ts';
import { fromEnv, number, type Shape, text } from './shape.ts';

/** Milliseconds that a timer can wait for. */
export const milliseconds = number(0, MAX_DELAY);
export const positiveMilliseconds = number(1, MAX_DELAY);

const TOKEN = "[!#$%&'*+.^_`|~0-9A-Za-z-]+";

export const HEADER_NAME = new RegExp(`^${TOKEN}$`);
export const headerName = text(HEADER_NAME, 'the name of a header');
/** A value that HTTP takes for what it is: no control characters, no space at either end. */
export const headerValue = text(
  /^(?:[\x21-\x7e\x80-\xff](?:[\t\x20-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?)?$/,
  'the value of a header: visible characters of Latin-1, without spaces at its ends',
);

export const method = text(
  /^(?!(?:TRACE|CONNECT)$)[A-Z]+(?:-[A-Z]+)*$/,
  'a method in capital letters, but not TRACE or CONNECT',
);

export const host = text(
  /^(?:(?:\*\.)?(?:[A-Za-z0-9_-]{1,63}\.)*[A-Za-z0-9_-]{1,63}|\[[0-9a-fA-F:.]+\])$/,
  "the name of a host without a port, such as 'shop.example' or '*.shop.example'",
);

export const SERVICE_NAME = /^[\w.:-]{1,128}$/;
export const service = text(SERVICE_NAME, 'the name of a service: letters, digits and . _ : - (at most 128)');

export const origin = text(
  /^https?:\/\/(?:[a-z0-9_-]+(?:\.[a-z0-9_-]+)*|\[[0-9a-f:.]+\])(?::\d{1,5})?$/,
  "an origin such as 'https://shop.example', in lower case and without a path",
);

export const scope = text(SCOPE, 'a scope without spaces, quotes and backslashes');

/** Names the part of a request that a rate limit counts by, or a split goes by. */
export const countBy = text(/^(?:address|key|claim:.+)$/, "'address', 'key' or 'claim:NAME'");
export const stickyBy = text(
  new RegExp(`^(?:address|claim:.+|(?:cookie|header):${TOKEN})$`),
  "'cookie:NAME', 'header:NAME', 'claim:NAME' or 'address'",
);

const DATE = /^(\d{4}-\d{2}-\d{2})(?:T\d{2}:\d{2}(?::\d{2}(?:\.\d{1,3})?)?(?:Z|[+-]\d{2}:\d{2}))?$/;

/** A day, or a time with its zone, that exists: the 30th of February does not. */
export const date = refine(
  text(DATE, "an ISO date such as '2026-12-31' or '2026-12-31T23:00:00Z'"),
  (value) => {
    const [, day] = DATE.exec(value)!;
    const exists = !Number.isNaN(Date.parse(value)) && new Date(day!).toISOString().startsWith(day!);
    return exists ? undefined : 'is not a date that exists';
  },
);

const NETWORK = /^[0-9a-fA-F:.]+(?:\/\d{1,3})?$/;

export const network = refine(text(NETWORK, "an address or a network such as '10.0.0.0/8'"), (value) =>
  isNetwork(value) ? undefined : "must be an address or a network such as '10.0.0.0/8'",
);

function isNetwork(value: string): boolean {
  const [address = '', bits] = value.split('/');
  if (isIP(address) === 0) return false;
  try {
    new BlockList().addSubnet(address, Number(bits ?? 0), isIPv6(address) ? 'ipv6' : 'ipv4');
    return true;
  } catch {
    return false;
  }
}

/** A URL of one of these schemes, without the colon. */
export function url(expected: string, ...schemes: readonly string[]): Shape {
  return refine(text(new RegExp(`^(?:${schemes.join('|')}):\\/\\/.+$`), expected), (value) =>
    URL.canParse(value) ? undefined : `must be ${expected}`,
  );
}

/** Adds to a text what its form cannot say. @param check gives the reason for which it is rejected */
export function refine(shape: Shape, check: (value: string) => string | undefined): Shape {
  return {
    ...shape,
    read(value, place) {
      const result = shape.read(value, place);
      if (!place.isClean()) return result;
      const reason = check(result as string);
      if (reason !== undefined) place.report(reason);
      return result;
    },
  };
}

/** A number that may come from the environment, where it is text. */
export function numberFromEnv(shape: Shape): Shape {
  return fromEnv(shape, (value) => (value.trim() === '' ? value : Number(value)));
}
