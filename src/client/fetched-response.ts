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

/** Bytes that are kept for a reader who is slower than the instance, before the instance is made to wait. */
const HIGH_WATER_MARK = 65_536;
/** Bytes of an answer that nobody wants which are read, so that its connection can be used again. */
const MAX_UNWANTED = 65_536;
/** Fetch standard, 'null body status'. */
const WITHOUT_BODY: ReadonlySet<number> = new Set([101, 103, 204, 205, 304]);
/** RFC 9112, section 4. */
const REASON_PHRASE = /^[\t\x20-\x7e\x80-\xff]*$/;

/** Ends the calls behind bodies that nobody can read any more, as a program does that looks at the status alone. */
const forgotten = new FinalizationRegistry<Controller>((controller) => {
  controller.abort(new Error('the body of the answer was forgotten before it was read'));
});

/** The head of an answer. */
export interface FetchedHead {
  readonly status: number;
  readonly headers: ResponseHeaders;
}

/** What becomes of an answer. */
export interface FetchedOutcome {
  /** Whether the answer is wanted: a redirect that is followed is not. Called once, with its head and whose it is. */
  wants(head: FetchedHead, instance: ServiceInstance | undefined): boolean;
  /** The largest body, in bytes, that is made of one that is encoded; undefined if that is left as it is. */
  maxDecoded(): number | undefined;
  /** The answer that is wanted. */
  resolve(response: Response): void;
  reject(error: unknown): void;
}

/**
 * Makes a Response of an answer as it comes. One that is here as a whole when its head is, as most are, needs no
 * stream between the socket and the reader; of any other the body is streamed at the pace of its reader.
 */
export class FetchedResponse implements Dispatcher.DispatchHandler {
  /** Not kept any longer than it is needed: it leads to the Response. */
  #outcome: FetchedOutcome | undefined;
  readonly #bodyError: (error: unknown) => unknown;
  readonly #withoutBody: boolean;
  readonly #origin: Origin;
  #status = 0;
  #statusText = '';
  #headers: ResponseHeaders = {};
  #instance: ServiceInstance | undefined = undefined;
  #wanted = true;
  #unwanted = 0;
  #chunks: Buffer[] = [];
  #ended = false;
  #stream: ReadableByteStreamController | undefined = undefined;
  /** The stream while it is full, and nobody waits for more: it lives as long as somebody may read it. */
  #full: WeakRef<ReadableByteStreamController> | undefined = undefined;

  /**
   * @param head whether it answers a HEAD request, and has no body whatever its head says
   * @param origin where it comes from
   * @param bodyError what a reader of the body is to be told of an error after the head
   */
  constructor(
    head: boolean,
    origin: Origin,
    bodyError: (error: unknown) => unknown,
    outcome: FetchedOutcome,
  ) {
    this.#withoutBody = head;
    this.#origin = origin;
    this.#bodyError = bodyError;
    this.#outcome = outcome;
  }

  onRequestStart(): void {}

  onResponseStart(
    controller: Controller,
    status: number,
    headers: ResponseHeaders,
    statusText: string = '',
  ): void {
    if (status < 200) return;
    this.#wanted = this.#outcome!.wants({ status, headers }, controller.instance);
    if (!this.#wanted) return;
    this.#status = status;
    this.#headers = headers;
    this.#instance = controller.instance;
    this.#statusText = statusText;
    if (this.#withoutBody || WITHOUT_BODY.has(status)) {
      this.#wanted = false;
      this.#respond(controller, null);
      return;
    }
    // The parser has been through all that came with the head before this is called.
    queueMicrotask(() => this.#streamTheRest(controller));
  }

  onResponseData(controller: Controller, chunk: Buffer): void {
    if (!this.#wanted) {
      this.#unwanted += chunk.length;
      if (this.#unwanted > MAX_UNWANTED) controller.abort(new Error('the rest of the answer is not wanted'));
      return;
    }
    if (this.#outcome !== undefined) {
      this.#chunks.push(chunk);
      return;
    }
    const stream = this.#openStream();
    if (stream === undefined) return;
    stream.enqueue(new Uint8Array(chunk));
    this.#waitIfFull(stream, controller);
  }

  onResponseEnd(controller: Controller): void {
    this.#ended = true;
    if (!this.#wanted) return;
    if (this.#outcome !== undefined) {
      this.#respond(controller, this.#chunks.length === 1 ? this.#chunks[0]! : Buffer.concat(this.#chunks));
      return;
    }
    const stream = this.#openStream();
    stream?.close();
    // A reader with a buffer of its own waits for it to be given back.
    stream?.byobRequest?.respond(0);
  }

  onResponseError(_controller: Controller, error: Error): void {
    const before = this.#ended;
    this.#ended = true;
    if (before || !this.#wanted) return;
    if (this.#outcome !== undefined) this.#outcome.reject(error);
    else this.#openStream()?.error(this.#bodyError(error));
  }

  /** None if nobody can read it any more. */
  #openStream(): ReadableByteStreamController | undefined {
    return this.#stream ?? this.#full?.deref();
  }

  #waitIfFull(stream: ReadableByteStreamController, controller: Controller): void {
    if ((stream.desiredSize ?? 0) > 0) return;
    controller.pause();
    this.#stream = undefined;
    if (this.#full !== undefined) return;
    this.#full = new WeakRef(stream);
    forgotten.register(stream, controller);
  }

  #streamTheRest(controller: Controller): void {
    if (this.#ended) return;
    const body = new ReadableStream(
      {
        type: 'bytes',
        start: (stream) => {
          this.#stream = stream;
          for (const chunk of this.#chunks) stream.enqueue(new Uint8Array(chunk));
          this.#chunks = [];
        },
        pull: (stream) => {
          this.#stream = stream;
          controller.resume();
        },
        cancel: (reason) => {
          this.#ended = true;
          this.#wanted = false;
          controller.abort(
            reason instanceof Error ? reason : new Error('the body was cancelled', { cause: reason }),
          );
        },
      },
      { highWaterMark: HIGH_WATER_MARK },
    );
    this.#waitIfFull(this.#stream!, controller);
    this.#respond(controller, body);
  }

  #respond(controller: Controller, body: ReadableStream | Uint8Array | null): void {
    const outcome = this.#outcome!;
    this.#outcome = undefined;
    const encoding = this.#headers['content-encoding'];
    const init = {
      status: this.#status,
      statusText: REASON_PHRASE.test(this.#statusText) ? this.#statusText : '',
      headers: headersOf(this.#headers),
    };
    try {
      const plain = encoding === undefined || body === null || (body as Uint8Array).length === 0;
      const max = plain ? undefined : outcome.maxDecoded();
      const content = max === undefined ? body : this.#decoded(body!, String(encoding), max);
      outcome.resolve(new (meshResponseClass())(content, init, this.#origin));
    } catch (error) {
      // A status that no Response can have.
      this.#wanted = false;
      controller.abort(error as Error);
      outcome.reject(error);
    }
  }

  #decoded(body: ReadableStream | Uint8Array, encoding: string, max: number): ReadableStream {
    const { serviceName = '', instanceId = '' } = this.#instance ?? {};
    return decodeStream(new Response(body as ReadableStream).body!, encoding, {
      max,
      tooLarge: () => createTooLargeError({ serviceName, instanceId }, max),
      errorOf: (error) => {
        const known = error instanceof TypeError || error instanceof HoldfastError;
        const instance = { serviceName, instanceId };
        return this.#bodyError(known ? error : createUndecodableError(instance, encoding, error));
      },
    });
  }
}

/** As a list of pairs only where a name comes several times. */
function headersOf(headers: ResponseHeaders): Record<string, string> | [string, string][] {
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
