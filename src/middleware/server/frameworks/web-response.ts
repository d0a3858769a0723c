import type { Hold } from '../idempotency/key-lock.ts';

/**
 * Keeps a Response under the idempotency key before it is sent, whether or not its client is still there. Of a stream
 * of events, which may have no end, nothing is kept.
 */
export async function keepResponse(response: Response, hold: Hold): Promise<void> {
  const { status, headers } = response;
  if (headers.get('content-type')?.startsWith('text/event-stream')) {
    hold.release();
    return;
  }
  try {
    const body = await bytesOf(response.clone(), hold.maxAnswerSize);
    if (body === undefined) hold.release();
    else await hold.complete({ status, headers: Object.fromEntries(headers), body });
  } catch {
    // The body failed while it was made; whoever sends it finds that out, too.
    hold.release();
  }
}

/** The body; undefined if it is longer than may be kept. */
async function bytesOf({ body }: Response, max: number): Promise<Uint8Array | undefined> {
  if (body === null) return new Uint8Array(0);
  const chunks: Uint8Array[] = [];
  let length = 0;
  const reader = (body as ReadableStream<Uint8Array>).getReader();
  for (let { done, value } = await reader.read(); !done; { done, value } = await reader.read()) {
    length += value!.length;
    if (length > max) {
      // Not waited for: the branch of a stream that was split is rid of only when the other has been read.
      reader.cancel().catch(() => {});
      return undefined;
    }
    chunks.push(value!);
  }
  return Buffer.concat(chunks);
}
