import { describe, expect, it } from 'vitest';
import { useGateways } from './gateways.ts';
import { END_HEADERS, END_STREAM, encode, FrameClient, frame, HEADERS } from './http2-frames.ts';
import type { Http2Outcome } from './http2-row.ts';
import { received } from './row.ts';
import { HTTP2_HEADS } from './rows/http2-heads.ts';
import { HTTP2_STREAMS } from './rows/http2-streams.ts';

const running = useGateways({ http2: true });

const NEXT = encode([
  [':method', 'GET'],
  [':scheme', 'http'],
  [':authority', 'shop.example'],
  [':path', '/next'],
]);

describe('a gateway that speaks HTTP/2', () => {
  for (const [name, frames, outcome] of [...HTTP2_HEADS, ...HTTP2_STREAMS]) {
    it(`${verbOf(outcome)} ${name}`, async () => {
      const { service } = running;
      service.reset();
      const client = await FrameClient.open(running.server);
      client.send(...frames);
      const result = await client.resultOf(1);
      const goesOn = client.goneAway === undefined;
      const next = goesOn ? client : await FrameClient.open(running.server);
      next.send(frame(HEADERS, END_HEADERS | END_STREAM, 3, NEXT));
      expect(await next.resultOf(3)).toBe(200);
      client.close();
      next.close();
      expect({ result, bytes: service.received.sort().join('') }).toEqual({
        ...outcome,
        bytes: outcome.bytes + received('GET /next', { version: '2.0' }),
      });
    });
  }
});

function verbOf({ result, bytes }: Http2Outcome): string {
  return result === 200 && bytes !== '' ? 'forwards' : 'rejects';
}
