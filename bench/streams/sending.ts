/** Sends with one of the senders, and looks at the memory of the process meanwhile. Run with --expose-gc. */
import { Readable } from 'node:stream';
import { setTimeout as pause } from 'node:timers/promises';
import { play } from '../support/part.ts';
import { AT_ONCE, CANCELLED, FIRST_CANCELLED, MAX_TIME, MIB, STREAMED } from './amounts.ts';
import { chunks } from './chunks.ts';
import { callsUnderWay, type Sender, senders } from './senders.ts';

export interface Sending {
  sender: string;
  origin: string;
}

export interface Streamed {
  seconds: number;
  /** Bytes in use at the most, garbage apart, above what there was before. */
  held: number;
  /** The same of all the memory of the process, garbage included. */
  resident: number;
}

export interface Cancelled {
  seconds: number;
  /** Bytes in use that are left of the calls after the first ones. */
  left: number;
  /** Sockets that are left open. */
  sockets: number;
  /** Calls that the balancer still counts. */
  calls: number;
}

/** Streams so many bytes, and tells of each part that has come or gone. Gives how many arrived. */
type Stream = (bytes: number, passed: (length: number) => void) => Promise<number>;

const WARM_UP = 64 * MIB;
/** Bytes between two looks at what is in use. */
const LOOK_EACH = 64 * MIB;
/** Milliseconds between two looks at the memory of the process. */
const RESIDENT_EACH = 20;

function download(send: Sender): Stream {
  return async (bytes, passed) => {
    let count = 0;
    const { signal } = new AbortController();
    for await (const chunk of await send({ path: `/bytes/${bytes}`, signal })) {
      count += chunk.length;
      passed(chunk.length);
    }
    return count;
  };
}

function upload(send: Sender): Stream {
  return async (bytes, passed) => {
    const parts = function* () {
      for (const chunk of chunks(bytes)) {
        passed(chunk.length);
        yield chunk;
      }
    };
    let answer = '';
    const { signal } = new AbortController();
    for await (const chunk of await send({ path: '/count', signal, body: Readable.from(parts()) })) {
      answer += typeof chunk === 'string' ? chunk : Buffer.from(chunk).toString();
    }
    return Number(answer);
  };
}

/** Once the first of the body is there: by the signal, or by reading no more. */
async function cancel(send: Sender, bySignal: boolean): Promise<void> {
  const controller = new AbortController();
  const { signal } = controller;
  try {
    for await (const _chunk of await send({ path: '/endless', signal })) {
      if (!bySignal) return;
      controller.abort();
    }
  } catch (error) {
    if (signal.aborted) return;
    throw error;
  }
  throw new Error('the call ended well though it was cancelled');
}

/** The bytes in use, without garbage: the second collection waits for what the first has begun. */
function inUse(): number {
  globalThis.gc!();
  globalThis.gc!();
  const { heapUsed, external } = process.memoryUsage();
  return heapUsed + external;
}

async function streamed(stream: Stream): Promise<Streamed> {
  await stream(WARM_UP, () => {});
  const [inUseBefore, residentBefore] = [inUse(), process.memoryUsage.rss()];
  let [mostInUse, mostResident] = [inUseBefore, residentBefore];
  const timer = setInterval(() => {
    mostResident = Math.max(mostResident, process.memoryUsage.rss());
  }, RESIDENT_EACH);
  let untilLook = LOOK_EACH;
  const startedAt = performance.now();
  const bytes = await stream(STREAMED, (length) => {
    untilLook -= length;
    if (untilLook > 0) return;
    untilLook += LOOK_EACH;
    mostInUse = Math.max(mostInUse, inUse());
  });
  const seconds = (performance.now() - startedAt) / 1_000;
  clearInterval(timer);
  if (bytes !== STREAMED) throw new Error(`${bytes} bytes came through instead of ${STREAMED}`);
  return { seconds, held: mostInUse - inUseBefore, resident: mostResident - residentBefore };
}

async function inUseAtRest(): Promise<number> {
  await pause(500);
  return inUse();
}

async function cancelled(send: Sender): Promise<Cancelled> {
  const startedAt = performance.now();
  const some = async (count: number) => {
    let left = count;
    const worker = async () => {
      while (left-- > 0) await cancel(send, left % 2 === 0);
    };
    await Promise.all(Array.from({ length: AT_ONCE }, worker));
  };
  await some(FIRST_CANCELLED);
  const before = await inUseAtRest();
  await some(CANCELLED - FIRST_CANCELLED);
  const seconds = (performance.now() - startedAt) / 1_000;
  const left = (await inUseAtRest()) - before;
  const sockets = process.getActiveResourcesInfo().filter((resource) => resource === 'TCPSocketWrap').length;
  return { seconds, left, sockets, calls: callsUnderWay() };
}

await play<Sending>(async ({ sender, origin }) => {
  const send = senders[sender]!(origin);
  setTimeout(() => {
    console.error(`${sender} was not done within ${MAX_TIME / 1_000} s`);
    process.exit(1);
  }, MAX_TIME).unref();
  return {
    download: () => streamed(download(send)),
    upload: () => streamed(upload(send)),
    cancel: () => cancelled(send),
  };
});
