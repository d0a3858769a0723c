import { get as getHttp, type IncomingMessage } from 'node:http';
import { get as getHttps } from 'node:https';

/** The most bytes of a JWKS: more than a hundred keys with certificates. */
const MAX_SIZE = 256 * 1024;

/**
 * Milliseconds for the whole response: less than the five seconds that a ServerGuard waits for an identity,
 * so that the last keys serve the request where the fetch of newer ones hangs.
 */
const TIMEOUT = 4_000;

/**
 * Fetches a JWKS. A redirect is a failure: it would let the network choose whose keys are trusted.
 *
 * @throws Error if there is no JSON with status 200 within time and size
 */
export async function fetchJwks(url: URL, timeout = TIMEOUT): Promise<unknown> {
  const response = await sendGet(url, AbortSignal.timeout(timeout));
  if (response.statusCode !== 200) {
    response.destroy();
    throw new Error(`it responded with status ${response.statusCode}`);
  }
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of response as AsyncIterable<Buffer>) {
    size += chunk.length;
    if (size > MAX_SIZE) throw new Error(`its response is larger than ${MAX_SIZE} bytes`);
    chunks.push(chunk);
  }
  return JSON.parse(Buffer.concat(chunks).toString());
}

function sendGet(url: URL, signal: AbortSignal): Promise<IncomingMessage> {
  return new Promise((resolve, reject) => {
    const get = url.protocol === 'https:' ? getHttps : getHttp;
    const headers = { accept: 'application/jwk-set+json, application/json' };
    // Without an agent there is no connection that stays open until the next fetch.
    get(url, { agent: false, headers, signal }, resolve).on('error', reject);
  });
}
