import type { Dispatcher } from 'undici';
import { decoded } from './content-encoding.ts';
import type { ResponseHeaders } from './exchange.ts';

type Controller = Dispatcher.DispatchController;

/** Bytes that are kept for a reader who is slower than the instance, before the instance is made to wait. */
const HIGH_WATER_MARK = 65_536;
/** Bytes of an answer that nobody wants which are read, so that its connection can be used again. */
const MAX_UNWANTED = 65_536;
/** Fetch standard, 'null body status'. */
const WITHOUT_BODY: ReadonlySet<number> = new Set([101, 103, 204, 205, 304]);

/** The head of an answer, and where it came from. */
export interface FetchedHead {
  readonly status: number;
  readonly headers: ResponseHeaders;
  readonly controller: Controller;
}

/** What becomes of an answer. */
export interface FetchedOutcome {
  /** Whether the answer is wanted: a redirect that is followed is not. Called once, with its head. */
  wants(head: FetchedHead): boolean;
  /** The answer that is wanted. */
  resolve(response: Response): void;
  reject(error: unknown): void;
  /** What a reader of the body is to be told of an error after the head. */
  bodyError(error: unknown): unknown;
}

/**
 * Makes a Response of an answer as it comes. One that is here as a whole when its head is, as most are, needs no
 * stream between the socket and the reader; of any other the body is streamed at the pace of its reader.
 */
export class FetchedResponse implements Dispatcher.DispatchHandler {
  readonly #outcome: FetchedOutcome;
  readonly #withoutBody: boolean;
  #status = 0;
  #statusText = '';
  #headers: ResponseHeaders = {};
  #wanted = true;
  #unwanted = 0;
  #chunks: Buffer[] = [];
  #ended = false;
  #stream: ReadableByteStreamController | undefined = undefined;

  /** @param head whether it answers a HEAD request, and has no body whatever its head says. */
  constructor(head: boolean, outcome: FetchedOutcome) {
    this.#withoutBody = head;
    this.#outcome = outcome;
  }

  onRequestStart(): void {}

  onResponseStart(
    controller: Controller,
    status: number,
    headers: ResponseHeaders,
    statusText?: string,
  ): void {
    if (status < 200) return;
    this.#wanted = this.#outcome.wants({ status, headers, controller });
    if (!this.#wanted) return;
    this.#status = status;
    this.#headers = headers;
    this.#statusText = statusText ?? '';
    // The parser has been through all that came with the head before this is called.
    queueMicrotask(() => this.#streamTheRest(controller));
  }

  onResponseData(controller: Controller, chunk: Buffer): void {
    if (!this.#wanted) {
      this.#unwanted += chunk.length;
      if (this.#unwanted > MAX_UNWANTED) controller.abort(new Error('the rest of the answer is not wanted'));
      return;
    }
    if (this.#stream === undefined) {
      this.#chunks.push(chunk);
      return;
    }
    this.#stream.enqueue(new Uint8Array(chunk));
    if ((this.#stream.desiredSize ?? 0) <= 0) controller.pause();
  }

  onResponseEnd(): void {
    this.#ended = true;
    if (!this.#wanted) return;
    if (this.#stream === undefined) {
      this.#respond(this.#chunks.length === 1 ? this.#chunks[0]! : Buffer.concat(this.#chunks));
      return;
    }
    this.#stream.close();
    // A reader with a buffer of its own waits for it to be given back.
    this.#stream.byobRequest?.respond(0);
  }

  onResponseError(_controller: Controller, error: Error): void {
    const before = this.#ended;
    this.#ended = true;
    if (before || !this.#wanted) return;
    if (this.#stream === undefined) this.#outcome.reject(error);
    else this.#stream.error(this.#outcome.bodyError(error));
  }

  #streamTheRest(controller: Controller): void {
    if (this.#ended) return;
    const stream = new ReadableStream(
      {
        type: 'bytes',
        start: (stream) => {
          this.#stream = stream;
          for (const chunk of this.#chunks) stream.enqueue(new Uint8Array(chunk));
          this.#chunks = [];
        },
        pull: () => controller.resume(),
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
    this.#respond(stream);
  }

  #respond(body: ReadableStream | Uint8Array): void {
    const status = this.#status;
    const encoding = this.#headers['content-encoding'] as string | undefined;
    const empty = this.#withoutBody || WITHOUT_BODY.has(status) || (body as Uint8Array).length === 0;
    try {
      const init = { status, statusText: this.#statusText, headers: headersOf(this.#headers) };
      const response = new Response(empty ? null : body, init);
      this.#outcome.resolve(encoding === undefined || empty ? response : decodedResponse(response, encoding));
    } catch (error) {
      this.#outcome.reject(error);
    }
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

function decodedResponse(response: Response, encoding: string): Response {
  const { status, statusText, headers } = response;
  return new Response(decoded(response.body!, String(encoding)), { status, statusText, headers });
}
