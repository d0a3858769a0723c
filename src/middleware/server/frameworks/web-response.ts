import type { KeyLock } from '../idempotency/key-lock.ts';

/**
 * Stores a Response under the idempotency key before it is sent, also when its client has
 * disconnected. A stream of events, which may have no end, is not stored.
 */
export async function storeWebResponse(response: Response, keyLock: KeyLock): Promise<void> {
  const { status, headers } = response;
  if (headers.get('content-type')?.startsWith('text/event-stream')) {
    keyLock.release();
    return;
  }
  try {
    const body = await readBytes(response.clone(), keyLock.maxResponseSize);
    if (body === undefined) keyLock.release();
    else await keyLock.complete({ status, headers: Object.fromEntries(headers), body });
  } catch {
    // The body failed while it was produced; the sender of the response gets the same error.
    keyLock.release();
  }
}

/** Reads the body; gives undefined if it is longer than may be stored. */
async function readBytes({ body }: Response, maxSize: number): Promise<Uint8Array | undefined> {
  if (body === null) return new Uint8Array(0);
  const chunks: Uint8Array[] = [];
  let length = 0;
  const reader = (body as ReadableStream<Uint8Array>).getReader();
  for (let { done, value } = await reader.read(); !done; { done, value } = await reader.read()) {
    length += value!.length;
    if (length > maxSize) {
      // The cancellation of a branch of a split stream settles only when the other was read, too.
      reader.cancel().catch(() => {});
      return undefined;
    }
    chunks.push(value!);
  }
  return Buffer.concat(chunks);
}
