import { expect, it } from 'vitest';
import { createAccessLog } from '../../src/cli/gateway-access-log.ts';

it.each([
  [
    'a request',
    { method: 'GET', path: '/a', service: 'shop', instanceId: 'shop-1' },
    '"GET /a" 400 5 1.3ms shop shop-1 r1',
  ],
  [
    'bytes that are no request',
    { method: '', path: '', service: undefined, instanceId: undefined },
    '"-" 400 5 1.3ms - - r1',
  ],
])('the access log of the command has one line for %s', (_name, entry, expected) => {
  const lines: string[] = [];
  const log = createAccessLog(
    { writeLines: (written: string[]) => void lines.push(...written) } as never,
    false,
  );
  log({ ...entry, status: 400, duration: 1.26, bytes: 5, requestId: 'r1', address: '192.0.2.1' });
  expect(lines).toEqual([expect.stringMatching(/^\S+Z 192\.0\.2\.1 /)]);
  expect(lines[0]!.endsWith(expected)).toBe(true);
});
