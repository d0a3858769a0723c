import type { Dispatcher } from 'undici';
import type { ServiceInstance } from '../discovery/service-instance.ts';
import { HoldfastError } from '../errors.ts';
import { decodeStream } from './content-encoding.ts';
import { meshResponseClass, type Origin } from './mesh-response.ts';
import type { ResponseHeaders } from './response.ts';
import { createTooLargeError, createUndecodableError } from './service-errors.ts';

/** A controller that knows where the response came from. */
interface Controller extends Dispatcher.DispatchController {
  readonly instance?: ServiceInstance | undefined;
}

type Stream = ReadableByteStreamController;

/**
 * The bytes that are kept for a reader who is slower than the instance, before the instance is made
 * to wait.
 */
const HIGH_WATER_MARK = 65_536;
/** The most bytes of an unwanted body that are read, so that its connection can be used again. */
const MAX_DRAINED = 65_536;
/** The statuses of responses without a body. Source: Fetch standard, 'null body status'. */
const WITHOUT_BODY: ReadonlySet<number> = new Set([101, 103, 204, 205, 304]);
/** The reason phrases that RFC 9112, section 4, allows. */
const REASON_PHRASE = /^[\t\x20-\x7e\x80-\xff]*$/;

/**
 * Ends the calls behind bodies that nobody can read any more, as where a program looks at the
 * status alone.
 */
const forgottenBodies = new FinalizationRegistry<Controller>((controller) => {
  controller.abort(new Error('the body of the response was forgotten before it was read'));
});

/** The fetch that gets a response. */
export interface ResponseReceiver {
  /**
   * Decides whether the caller gets the response: it gets no redirect that is followed. Called
   * once, with the head and the instance that sent it.
   */
  accepts(status: number, headers: ResponseHeaders, instance: ServiceInstance | undefined): boolean;
  /**
   * Gives the largest body, in bytes, that is made of an encoded one; undefined if that stays as it
   * is.
   */
  maxDecoded(): number | undefined;
  /** Takes the response that was accepted. */
  resolve(response: Response): void;
  reject(error: unknown): void;
}

/** The head of a response that was accepted. */
interface Head {
  readonly receiver: ResponseReceiver;
  readonly status: number;
  readonly statusText: string;
  readonly headers: ResponseHeaders;
  readonly instance: ServiceInstance | undefined;
}

/**
 * How far a response has come. It is `waiting` for its head; then `buffering` the chunks that come
 * with the head; then `streaming` the rest of the body at the pace of its reader. It is `draining`
 * a body that the caller does not get, or it is `done`.
 *
 * The receiver leads to the Response, and is kept by no phase that has no more need of it.
 */
interface Waiting {
  readonly name: 'waiting';
  readonly receiver: ResponseReceiver;
}
interface Buffering extends Head {
  readonly name: 'buffering';
  readonly chunks: Buffer[];
}
interface Streaming {
  readonly name: 'streaming';
  /** The stream, unless it is full and nobody waits for more. */
  stream: Stream | undefined;
  /** The stream, once it has been full: while it is, it lives as long as somebody may read it. */
  full: WeakRef<Stream> | undefined;
}
interface Draining {
  readonly name: 'draining';
  bytes: number;
}
interface Done {
  readonly name: 'done';
}
type Phase = Waiting | Buffering | Streaming | Draining | Done;

const DONE: Done = { name: 'done' };

/**
 * Makes a Response of a response as it comes. Most are complete when their head is read: these need
 * no stream between the socket and the reader. The body of any other is streamed at the pace of its
 * reader.
 */
export class FetchedResponse implements Dispatcher.DispatchHandler {
  readonly #withoutBody: boolean;
  readonly #origin: Origin;
  readonly #bodyError: (error: unknown) => unknown;
  #phase: Phase;

  /**
   * @param withoutBody whether it has no body whatever its head says, as a response to HEAD
   * @param origin where it comes from
   * @param bodyError gives the error that a reader of the body gets for an error after the head
   */
  constructor(
    withoutBody: boolean,
    origin: Origin,
    bodyError: (error: unknown) => unknown,
    receiver: ResponseReceiver,
  ) {
    this.#withoutBody = withoutBody;
    this.#origin = origin;
    this.#bodyError = bodyError;
    this.#phase = { name: 'waiting', receiver };
  }

  onRequestStart(): void {}

  onResponseStart(
    controller: Controller,
    status: number,
    headers: ResponseHeaders,
    statusText: string = '',
  ): void {
    const phase = this.#phase;
    if (status < 200 || phase.name !== 'waiting') return;
    const { receiver } = phase;
    const { instance } = controller;
    if (!receiver.accepts(status, headers, instance)) {
      this.#phase = { name: 'draining', bytes: 0 };
    } else if (this.#withoutBody || WITHOUT_BODY.has(status)) {
      this.#phase = { name: 'draining', bytes: 0 };
      this.#respond(controller, { receiver, status, statusText, headers, instance }, null);
    } else {
      this.#phase = { name: 'buffering', receiver, status, statusText, headers, instance, chunks: [] };
      // The parser has been through all that came with the head before this is called.
      queueMicrotask(() => this.#startStreaming(controller));
    }
  }

  onResponseData(controller: Controller, chunk: Buffer): void {
    const phase = this.#phase;
    if (phase.name === 'buffering') {
      phase.chunks.push(chunk);
    } else if (phase.name === 'streaming') {
      const stream = openStream(phase);
      if (stream === undefined) return;
      stream.enqueue(new Uint8Array(chunk));
      pauseIfFull(phase, stream, controller);
    } else if (phase.name === 'draining') {
      phase.bytes += chunk.length;
      if (phase.bytes > MAX_DRAINED) {
        controller.abort(new Error('the rest of the response is discarded'));
      }
    }
  }

  onResponseEnd(controller: Controller): void {
    const phase = this.#phase;
    this.#phase = DONE;
    if (phase.name === 'buffering') {
      const { chunks } = phase;
      this.#respond(controller, phase, chunks.length === 1 ? chunks[0]! : Buffer.concat(chunks));
    } else if (phase.name === 'streaming') {
      const stream = openStream(phase);
      stream?.close();
      // A reader with a buffer of its own waits for it to be given back.
      stream?.byobRequest?.respond(0);
    } else if (phase.name === 'waiting') {
      phase.receiver.reject(new Error('the response ended before its head'));
    }
  }

  onResponseError(_controller: Controller, error: Error): void {
    const phase = this.#phase;
    this.#phase = DONE;
    if (phase.name === 'waiting' || phase.name === 'buffering') phase.receiver.reject(error);
    else if (phase.name === 'streaming') openStream(phase)?.error(this.#bodyError(error));
  }

  #startStreaming(controller: Controller): void {
    const head = this.#phase;
    if (head.name !== 'buffering') return;
    const phase: Streaming = { name: 'streaming', stream: undefined, full: undefined };
    this.#phase = phase;
    const body = this.#openBody(phase, controller);
    const stream = phase.stream!;
    for (const chunk of head.chunks) stream.enqueue(new Uint8Array(chunk));
    pauseIfFull(phase, stream, controller);
    this.#respond(controller, head, body);
  }

  #openBody(phase: Streaming, controller: Controller): ReadableStream {
    return new ReadableStream(
      {
        type: 'bytes',
        start: (stream) => {
          phase.stream = stream;
        },
        pull: (stream) => {
          phase.stream = stream;
          controller.resume();
        },
        cancel: (reason) => {
          this.#phase = DONE;
          controller.abort(
            reason instanceof Error ? reason : new Error('the body was cancelled', { cause: reason }),
          );
        },
      },
      { highWaterMark: HIGH_WATER_MARK },
    );
  }

  #respond(controller: Controller, head: Head, body: ReadableStream | Uint8Array | null): void {
    const { receiver, status, statusText, headers } = head;
    const encoding = headers['content-encoding'];
    const init = {
      status,
      statusText: REASON_PHRASE.test(statusText) ? statusText : '',
      headers: toHeadersInit(headers),
    };
    try {
      const plain = encoding === undefined || body === null || (body as Uint8Array).length === 0;
      const max = plain ? undefined : receiver.maxDecoded();
      const content = max === undefined ? body : this.#decode(body!, String(encoding), max, head.instance);
      receiver.resolve(new (meshResponseClass())(content, init, this.#origin));
    } catch (error) {
      // No Response can have this status.
      this.#phase = DONE;
      controller.abort(error as Error);
      receiver.reject(error);
    }
  }

  #decode(
    body: ReadableStream | Uint8Array,
    encoding: string,
    max: number,
    { serviceName, instanceId }: Pick<ServiceInstance, 'serviceName' | 'instanceId'> = UNKNOWN_INSTANCE,
  ): ReadableStream {
    const instance = { serviceName, instanceId };
    return decodeStream(new Response(body as ReadableStream).body!, encoding, {
      max,
      tooLarge: () => createTooLargeError(instance, max),
      errorOf: (error) => {
        const known = error instanceof TypeError || error instanceof HoldfastError;
        return this.#bodyError(known ? error : createUndecodableError(instance, encoding, error));
      },
    });
  }
}

const UNKNOWN_INSTANCE = { serviceName: '', instanceId: '' };

/** Gives the stream, unless nobody can read it any more. */
function openStream({ stream, full }: Streaming): Stream | undefined {
  return stream ?? full?.deref();
}

function pauseIfFull(phase: Streaming, stream: Stream, controller: Controller): void {
  if ((stream.desiredSize ?? 0) > 0) return;
  controller.pause();
  phase.stream = undefined;
  if (phase.full !== undefined) return;
  phase.full = new WeakRef(stream);
  forgottenBodies.register(stream, controller);
}

/** Gives a list of pairs only where a name comes several times. */
function toHeadersInit(headers: ResponseHeaders): Record<string, string> | [string, string][] {
  const pairs: [string, string][] = [];
  let several = false;
  for (const name of Object.keys(headers)) {
    const value = headers[name];
    if (typeof value === 'string') pairs.push([name, value]);
    else if (value !== undefined) {
      several = true;
      for (const item of value) pairs.push([name, item]);
    }
  }
  return several ? pairs : (headers as Record<string, string>);
}
