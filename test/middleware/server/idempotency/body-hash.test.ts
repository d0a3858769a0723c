import fc from 'fast-check';
import { expect, it } from 'vitest';
import { BodyHash, type Fingerprint } from '../../../../src/middleware/server/idempotency/body-hash.ts';

const request = ['POST', '/orders?a=1'] as const;

function fingerprintOf(body: Uint8Array, complete = true): Fingerprint {
  const hash = new BodyHash(...request);
  hash.update(body);
  if (complete) hash.end();
  return hash.fingerprint();
}

/** Whether a request with this body matches, read as far as needed in pieces of the given sizes. */
function isSame(
  expected: Fingerprint,
  body: Uint8Array,
  sizes: number[] = [body.length],
  target = request[1],
) {
  const hash = new BodyHash('POST', target, expected);
  let at = 0;
  for (let piece = 0; at < body.length && hash.needsMore; piece++) {
    const size = Math.max(1, sizes[piece % sizes.length] ?? 1);
    hash.update(body.subarray(at, at + size));
    at += size;
  }
  if (at >= body.length && hash.needsMore) hash.end();
  return hash.matches();
}

const bytes = fc.uint8Array({ maxLength: 40 });
const sizes = fc.array(fc.integer({ min: 1, max: 10 }), { minLength: 1, maxLength: 5 });

it('a request matches a request with the same body, in any chunks, and no other', () => {
  fc.assert(
    fc.property(bytes, bytes, sizes, (body, other, pieces) => {
      expect(isSame(fingerprintOf(body), body, pieces)).toBe(true);
      expect(isSame(fingerprintOf(body), other, pieces)).toBe(Buffer.compare(body, other) === 0);
    }),
  );
});

it('a request matches one that was not read to its end if its body begins with the read part', () => {
  fc.assert(
    fc.property(bytes, bytes, sizes, (read, rest, pieces) => {
      const expected = fingerprintOf(read, false);
      expect(isSame(expected, Buffer.concat([read, rest]), pieces)).toBe(true);
      if (read.length > 0) expect(isSame(expected, read.subarray(1), pieces)).toBe(false);
    }),
  );
});

it('a longer body does not match, and is not read to its end', () => {
  const hash = new BodyHash(...request, fingerprintOf(Buffer.from('abc')));
  hash.update(Buffer.from('abc'));
  expect(hash.needsMore).toBe(true);
  hash.update(Buffer.from('d'));
  expect(hash.needsMore).toBe(false);
  expect(hash.matches()).toBe(false);
});

it('a request with another target or method does not match', () => {
  const expected = fingerprintOf(Buffer.from('abc'));
  expect(isSame(expected, Buffer.from('abc'), [3], '/orders?a=2' as never)).toBe(false);
  const hash = new BodyHash('PATCH', '/orders?a=1', expected);
  hash.update(Buffer.from('abc'));
  hash.end();
  expect(hash.matches()).toBe(false);
});
