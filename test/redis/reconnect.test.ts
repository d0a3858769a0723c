import type { AddressInfo, Socket } from 'node:net';
import { createServer } from 'node:net';
import { Redis } from 'ioredis';
import { describe, expect, onTestFinished, test, vi } from 'vitest';
import { errorMessage, redactArguments } from '../../src/redis/ioredis-errors.ts';
import { destroy, Reconnection } from '../../src/redis/reconnect.ts';
import { fakeTime, pass } from '../policies/helpers.ts';

/** Milliseconds until each of the attempts to connect, all of which fail with the error. */
async function waitsFor(count: number, random: number, error?: unknown): Promise<number[]> {
  fakeTime();
  vi.spyOn(Math, 'random').mockReturnValue(random);
  const waits: number[] = [];
  let since = 0;
  const reconnection = new Reconnection(() => {
    waits.push(performance.now() - since);
    since = performance.now();
    reconnection.schedule(error);
  });
  since = performance.now();
  reconnection.schedule(error);
  while (waits.length < count) await pass(1);
  reconnection.stop();
  vi.useRealTimers();
  return waits;
}

function replyError(message: string): Error {
  return Object.assign(new Error(message), { name: 'ReplyError' });
}

describe('attempts to connect to Redis', () => {
  test('attempts to connect to Redis come after twice the wait each time, up to half a second', async () => {
    expect(await waitsFor(8, 1)).toEqual([20, 40, 80, 160, 320, 500, 500, 500]);
    expect(await waitsFor(3, 0)).toEqual([10, 20, 40]);
  });

  test('attempts to connect to Redis come ever more rarely where Redis rejects them', async () => {
    const waits = await waitsFor(10, 1, replyError('WRONGPASS'));
    expect(waits.slice(5)).toEqual([640, 1_280, 2_560, 5_000, 5_000]);
  });

  test('attempts to connect to Redis begin anew after a connection that lasted, and go on after one that did not', async () => {
    fakeTime();
    vi.spyOn(Math, 'random').mockReturnValue(1);
    const connect = vi.fn();
    const reconnection = new Reconnection(connect);
    const connectsAfter = async (milliseconds: number) => {
      connect.mockClear();
      reconnection.schedule(undefined);
      expect(reconnection.pending).toBe(true);
      await pass(milliseconds - 1);
      expect(connect).not.toHaveBeenCalled();
      await pass(1);
      expect(connect).toHaveBeenCalledOnce();
      expect(reconnection.pending).toBe(false);
    };
    await connectsAfter(20);
    reconnection.succeeded();
    await pass(100);
    await connectsAfter(40);
    await connectsAfter(80);
    reconnection.succeeded();
    await pass(500);
    await connectsAfter(20);
    vi.useRealTimers();
  });
});

test('an error of Redis is shown without the command and its arguments', () => {
  const error = Object.assign(replyError('WRONGPASS'), { command: { name: 'auth', args: ['secret'] } });
  expect(redactArguments(error)).toBe(error);
  expect(error).not.toHaveProperty('command');
  const unknown = replyError("ERR unknown command 'AUTH', with args beginning with: 'user' 'secret' ");
  expect(redactArguments(unknown)).toMatchObject({
    name: 'ReplyError',
    message: "ERR unknown command 'AUTH'",
  });
  expect(redactArguments('no error')).toBe('no error');
});

test('the message of an error of several addresses has the message of each', () => {
  expect(errorMessage(new AggregateError([new Error('one'), 'two']))).toBe('one, two');
});

test('a connection to a Redis that stands still is ended once, however many commands give it up', async () => {
  const sockets: Socket[] = [];
  const server = createServer((socket) => void sockets.push(socket));
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  onTestFinished(() => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });
  const { port } = server.address() as AddressInfo;
  const redis = new Redis({ port, retryStrategy: () => null });
  redis.on('error', () => {});
  await new Promise((resolve) => redis.once('connect', resolve));
  const { stream } = redis;
  const ended = new Promise((resolve) => redis.once('end', resolve));
  destroy(redis, new Error('no response'));
  const listeners = stream.listenerCount('close');
  for (let n = 0; n < 20; n++) destroy(redis, new Error('no response'));
  expect(stream.listenerCount('close')).toBe(listeners);
  await ended;
  expect(stream.destroyed).toBe(true);
});
