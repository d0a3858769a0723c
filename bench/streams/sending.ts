/** Sends with one of the senders, and looks at the memory of the process meanwhile. Run with --expose-gc. */
import { Readable } from 'node:stream';
import { setTimeout } from 'node:timers/promises';
import { play } from '../support/part.ts';
import { AT_ONCE, CANCELLED, FIRST_CANCELLED, MIB, STREAMED } from './amounts.ts';
import { chunks } from './chunks.ts';
import { type Sender, senders } from './senders.ts';

export interface Sending {
  sender: string;
  origin: string;
}

export interface Streamed {
  seconds: number;
  /** Bytes in use at the most, above what there was before. */
  growth: number;
}

export interface Cancelled {
  seconds: number;
  /** Bytes in use that are left of the calls after the first ones. */
  growth: number;
  /** Sockets that are left open. */
  sockets: number;
}

const WARM_UP = 64 * MIB;

async function download(send: Sender, bytes: number): Promise<number> {
  let count = 0;
  const { signal } = new AbortController();
  for await (const chunk of await send({ path: `/bytes/${bytes}`, signal })) count += chunk.length;
  return count;
}

async function upload(send: Sender, bytes: number): Promise<number> {
  let answer = '';
  const { signal } = new AbortController();
  const body = Readable.from(chunks(bytes));
  for await (const chunk of await send({ path: '/count', signal, body })) {
    answer += typeof chunk === 'string' ? chunk : Buffer.from(chunk).toString();
  }
  return Number(answer);
}

/** Once the first of the body is there. */
async function cancel(send: Sender): Promise<void> {
  const controller = new AbortController();
  try {
    for await (const _chunk of await send({ path: '/endless', signal: controller.signal }))
      controller.abort();
  } catch (error) {
    if (controller.signal.aborted) return;
    throw error;
  }
  throw new Error('the call ended well though it was cancelled');
}

/** What is in use, garbage apart: the second collection waits for what the first has begun. */
function memory(): number {
  globalThis.gc!();
  globalThis.gc!();
  const { heapUsed, external } = process.memoryUsage();
  return heapUsed + external;
}

async function streamed(stream: (bytes: number) => Promise<number>): Promise<Streamed> {
  await stream(WARM_UP);
  const before = memory();
  let most = before;
  const look = setInterval(() => {
    most = Math.max(most, memory());
  }, 50);
  const startedAt = performance.now();
  const bytes = await stream(STREAMED);
  clearInterval(look);
  if (bytes !== STREAMED) throw new Error(`${bytes} bytes came through instead of ${STREAMED}`);
  return { seconds: (performance.now() - startedAt) / 1_000, growth: most - before };
}

async function memoryAtRest(): Promise<number> {
  await setTimeout(500);
  return memory();
}

async function cancelled(send: Sender): Promise<Cancelled> {
  const startedAt = performance.now();
  const some = async (count: number) => {
    let left = count;
    const worker = async () => {
      while (left-- > 0) await cancel(send);
    };
    await Promise.all(Array.from({ length: AT_ONCE }, worker));
  };
  await some(FIRST_CANCELLED);
  const before = await memoryAtRest();
  await some(CANCELLED - FIRST_CANCELLED);
  const growth = (await memoryAtRest()) - before;
  const sockets = process.getActiveResourcesInfo().filter((resource) => resource === 'TCPSocketWrap').length;
  return { seconds: (performance.now() - startedAt) / 1_000, growth, sockets };
}

await play<Sending>(async ({ sender, origin }) => {
  const send = senders[sender]!(origin);
  return {
    download: () => streamed((bytes) => download(send, bytes)),
    upload: () => streamed((bytes) => upload(send, bytes)),
    cancel: () => cancelled(send),
  };
});
