import { PassThrough } from 'node:stream';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { Direction } from '../../../src/gateway/websocket/direction.ts';
import { FrameTracker } from '../../../src/gateway/websocket/frame-tracker.ts';
import { FrameReader, frame, OPCODES } from '../../support/websockets.ts';

const MASK = Buffer.from([9, 8, 7, 6]);
const GOING_AWAY = Buffer.from([0x88, 2, 0x03, 0xe9]);

/** Frames of any length, masked or not, with and without the bits of extensions. */
const frames = fc.array(
  fc
    .record({
      opcode: fc.constantFrom(0, OPCODES.text, OPCODES.binary, OPCODES.ping, OPCODES.pong),
      length: fc.oneof(fc.nat(130), fc.constantFrom(0, 125, 126, 127, 65_535)),
      masked: fc.boolean(),
      bits: fc.constantFrom(0x80, 0, 0xc0, 0x40),
    })
    .map(({ opcode, length, masked, bits }) =>
      frame(opcode, Buffer.alloc(length, 0x88), masked ? MASK : undefined, bits),
    ),
  { minLength: 1, maxLength: 8 },
);

/** Cuts bytes into chunks of these sizes in turn. */
function cut(bytes: Buffer, sizes: readonly number[]): Buffer[] {
  const chunks: Buffer[] = [];
  for (let start = 0, turn = 0; start < bytes.length; turn++) {
    const size = sizes[turn % sizes.length]!;
    chunks.push(bytes.subarray(start, start + size));
    start += size;
  }
  return chunks;
}

const sizes = fc.array(fc.oneof(fc.integer({ min: 1, max: 20 }), fc.integer({ min: 1, max: 70_000 })), {
  minLength: 1,
  maxLength: 10,
});

describe('a frame tracker', () => {
  it('a frame tracker is between frames exactly where one has ended, however the bytes are cut', () => {
    fc.assert(
      fc.property(frames, sizes, (list, cuts) => {
        const ends = new Set<number>();
        let end = 0;
        for (const { length } of list) {
          end += length;
          ends.add(end);
        }
        const tracker = new FrameTracker();
        let taken = 0;
        for (const chunk of cut(Buffer.concat(list), cuts)) {
          tracker.skip(chunk);
          taken += chunk.length;
          expect(tracker.betweenFrames).toBe(ends.has(taken));
        }
        expect(tracker.closed).toBe(false);
      }),
      { numRuns: 100 },
    );
  });

  it('a frame tracker stops at the end of each frame', () => {
    const list = [frame(OPCODES.text, 'a'), frame(OPCODES.ping), frame(OPCODES.binary, Buffer.alloc(300))];
    const bytes = Buffer.concat(list);
    const tracker = new FrameTracker();
    const stops: number[] = [];
    while ((stops.at(-1) ?? 0) < bytes.length) stops.push(tracker.advance(bytes, stops.at(-1) ?? 0));
    expect(stops).toEqual([3, 5, 309]);
  });

  it('a frame tracker knows a Close frame once it is whole', () => {
    const tracker = new FrameTracker();
    const closing = frame(OPCODES.close, Buffer.from([3, 232]), MASK);
    tracker.skip(closing.subarray(0, -1));
    expect(tracker.closed).toBe(false);
    tracker.skip(closing.subarray(-1));
    expect(tracker.closed).toBe(true);
  });

  it('a frame of 64-bit length ends after that many bytes', () => {
    const head = Buffer.from([0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0]);
    const tracker = new FrameTracker();
    tracker.skip(head);
    tracker.skip(Buffer.alloc(65_535));
    expect(tracker.betweenFrames).toBe(false);
    tracker.skip(Buffer.alloc(1));
    expect(tracker.betweenFrames).toBe(true);
  });
});

describe('a direction that is closed', () => {
  it('the target gets whole frames and then one Close frame, at whatever byte the close comes', async () => {
    await fc.assert(
      fc.asyncProperty(frames, sizes, fc.nat(), async (list, cuts, when) => {
        const source = new PassThrough({ highWaterMark: 1_000_000 });
        const target = new PassThrough({ highWaterMark: 1_000_000 });
        let closes = 0;
        const direction = new Direction(
          source,
          target,
          () => GOING_AWAY,
          () => closes++,
        );
        const chunks = cut(Buffer.concat(list), cuts);
        for (const [index, chunk] of chunks.entries()) {
          if (index === when % chunks.length) direction.close();
          source.write(chunk);
          await new Promise(setImmediate);
        }
        direction.close();
        expect(direction.targetClosed).toBe(true);
        expect(closes).toBe(1);
        const reader = new FrameReader();
        reader.push(target.read() as Buffer);
        expect(reader.rest).toBe(0);
        expect(reader.frames.findIndex(({ opcode }) => opcode === OPCODES.close)).toBe(
          reader.frames.length - 1,
        );
        expect(reader.frames.at(-1)!.payload.readUInt16BE()).toBe(1001);
        expect(reader.frames.length - 1).toBeLessThanOrEqual(list.length);
      }),
      { numRuns: 100 },
    );
  });

  it('a target that has got a Close frame of the source gets no other', async () => {
    const source = new PassThrough();
    const target = new PassThrough();
    const direction = new Direction(
      source,
      target,
      () => GOING_AWAY,
      () => {},
    );
    source.write(frame(OPCODES.close, Buffer.from([3, 232])));
    await new Promise(setImmediate);
    direction.close();
    const reader = new FrameReader();
    reader.push(target.read() as Buffer);
    expect(reader.frames.map(({ payload }) => payload.readUInt16BE())).toEqual([1000]);
    expect(direction.sourceClosed && direction.targetClosed).toBe(true);
  });
});
