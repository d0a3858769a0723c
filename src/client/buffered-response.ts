import { isUtf8 } from 'node:buffer';
import type { Dispatcher } from 'undici';
import type { Lease } from '../balancing/lease.ts';
import type { ServiceResponseError } from '../errors.ts';
import type { AbortListener } from '../policies/abort.ts';
import type { Attempt } from './attempt.ts';
import type { CallState } from './call-state.ts';
import type { AttemptHandler, Connection } from './connections.ts';
import { decodeWhole } from './content-encoding.ts';
import { createDispatchOptions } from './dispatch-options.ts';
import type { ResponseHead, ResponseHeaders } from './response.ts';
import { parseContent, textOf, toResponseError } from './response-content.ts';
import { Sending } from './sending.ts';
import { createTooLargeError, createUndecodableError, toServiceError } from './service-errors.ts';
import type { AttemptResult, Transport } from './transport.ts';

type Controller = Dispatcher.DispatchController;

/**
 * A response whose body was read to its end. A cache may keep it and calls may share it, so that it
 * does not refer to a call.
 */
export class BufferedResponse implements AttemptResult<unknown> {
  readonly status: number;
  readonly headers: ResponseHeaders;
  readonly instanceId: string;
  /** body is decoded, without a byte order mark; it is empty if it is `binary`. */
  readonly body: string;
  /** Whether the body is no UTF-8 text. */
  readonly binary: boolean;
  readonly succeeded: boolean;

  constructor({ status, headers, instanceId }: ResponseHead, bytes: Buffer | undefined, attempt: Attempt) {
    this.status = status;
    this.headers = headers;
    this.instanceId = instanceId;
    this.binary = bytes !== undefined && !isUtf8(bytes);
    this.body = bytes === undefined || this.binary ? '' : decodeText(bytes);
    this.succeeded = attempt.judge(this);
  }

  /** Releases the lease at once: the body has ended. */
  hold(lease: Lease): void {
    lease.release();
  }

  deliver(call: CallState, failure?: unknown): unknown {
    if (failure !== undefined) throw failure;
    return parseContent(call, this);
  }

  discard(): void {}

  toError(call: CallState): ServiceResponseError {
    return toResponseError(call, this, textOf(this));
  }
}

/**
 * Creates the transport whose responses are read whole.
 *
 * @param maxResponseSize the largest body, in bytes
 */
export function createBufferedTransport(maxResponseSize: number): Transport<BufferedResponse> {
  return (attempt) => {
    return new Promise((resolve, reject) => {
      const options = createDispatchOptions(attempt);
      // The deadline bounds the wait for the body, so that undici need not do so as well.
      if (attempt.context.deadline !== Infinity) options.bodyTimeout = 0;
      attempt.dispatch(options, new BufferedHandler(attempt, maxResponseSize, resolve, reject));
    });
  };
}

/** Reads a response whole for undici, until the attempt is aborted. */
class BufferedHandler implements AttemptHandler, AbortListener {
  connection: Connection | undefined = undefined;
  next: AbortListener | undefined = undefined;
  previous: AbortListener | undefined = undefined;
  listening = false;
  readonly #attempt: Attempt;
  readonly #sending: Sending;
  readonly #maxResponseSize: number;
  readonly #resolve: (response: BufferedResponse) => void;
  readonly #reject: (error: unknown) => void;
  #status = 0;
  #headers: ResponseHeaders = {};
  #first: Buffer | undefined = undefined;
  #rest: Buffer[] | undefined = undefined;
  #size = 0;
  #complete = false;

  constructor(
    attempt: Attempt,
    maxResponseSize: number,
    resolve: (response: BufferedResponse) => void,
    reject: (error: unknown) => void,
  ) {
    this.#attempt = attempt;
    this.#sending = new Sending(attempt.call);
    this.#maxResponseSize = maxResponseSize;
    this.#resolve = resolve;
    this.#reject = reject;
    attempt.context.listen(this);
  }

  onAbort(reason: unknown): void {
    this.#reject(reason);
    // A response that is being decoded holds no connection any more.
    if (!this.#complete) this.#sending.abort(this, reason);
  }

  onRequestStart(controller: Controller): void {
    this.#sending.begin(controller);
  }

  onResponseStart(controller: Controller, status: number, headers: ResponseHeaders): void {
    if (status < 200) return;
    this.#status = status;
    this.#headers = headers;
    // RFC 9110, section 8.6: these tell the length of the body that another response would have.
    const bodiless = status === 304 || this.#attempt.call.request.method === 'HEAD';
    if (!bodiless && Number(headers['content-length']) > this.#maxResponseSize)
      controller.abort(this.#createTooLargeError());
  }

  onResponseData(controller: Controller, chunk: Buffer): void {
    this.#size += chunk.length;
    if (this.#size > this.#maxResponseSize) controller.abort(this.#createTooLargeError());
    else if (this.#first === undefined) this.#first = chunk;
    else if (this.#rest === undefined) this.#rest = [this.#first, chunk];
    else this.#rest.push(chunk);
  }

  onResponseEnd(): void {
    this.connection!.release();
    this.#complete = true;
    const bytes = this.#rest === undefined ? this.#first : Buffer.concat(this.#rest, this.#size);
    const encoding = this.#headers['content-encoding'];
    if (bytes === undefined || encoding === undefined) this.#settle(bytes);
    else void this.#decode(bytes, String(encoding));
  }

  onResponseError(_controller: Controller, error: Error): void {
    this.connection?.release();
    this.#attempt.context.unlisten(this);
    this.#reject(toServiceError(error, this.#attempt.instance, this.#sending.sent));
  }

  async #decode(bytes: Buffer, encoding: string): Promise<void> {
    try {
      this.#settle(await decodeWhole(bytes, encoding, this.#maxResponseSize));
    } catch (cause) {
      this.#attempt.context.unlisten(this);
      const large = (cause as { code?: string | undefined }).code === 'ERR_BUFFER_TOO_LARGE';
      this.#reject(
        large ? this.#createTooLargeError() : createUndecodableError(this.#attempt.instance, encoding, cause),
      );
    }
  }

  #settle(bytes: Buffer | undefined): void {
    const { context, instance } = this.#attempt;
    context.unlisten(this);
    const head = { status: this.#status, headers: this.#headers, instanceId: instance.instanceId };
    this.#resolve(new BufferedResponse(head, bytes, this.#attempt));
  }

  #createTooLargeError(): Error {
    return createTooLargeError(this.#attempt.instance, this.#maxResponseSize);
  }
}

/** Decodes without a byte order mark, which JSON.parse rejects. */
function decodeText(bytes: Buffer): string {
  const marked = bytes[0] === 0xef && bytes[1] === 0xbb && bytes[2] === 0xbf;
  return bytes.toString('utf8', marked ? 3 : 0);
}
