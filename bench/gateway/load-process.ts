/**
 * The clients of the proxies, in a process of their own: connections that are kept alive, each of which sends its next
 * request once the response to the last one is whole. They read no more of a response than they must.
 */
import { connect } from 'node:net';
import { importJWK, type JWK, SignJWT } from 'jose';
import { percentile } from '../support/measure.ts';
import { play } from '../support/part.ts';
import { ISSUER } from './issuer.ts';
import { WORKLOADS, type WorkloadName } from './workloads.ts';

export interface LoadTask {
  /** The addresses of the proxies by name. */
  readonly urls: Readonly<Record<string, string>>;
  /** The key that signs tokens. */
  readonly key: JWK;
}

export interface LoadResult {
  readonly perSecond: number;
  /** Milliseconds. */
  readonly p99: number;
  readonly requests: number;
  /** Bytes a second of the bodies that came. */
  readonly bytesPerSecond: number;
}

/** Milliseconds. */
const TURN = 300;
const CONNECTIONS: Record<WorkloadName, number> = { get: 64, post: 64, download: 8 };
const TOKENS = 1_000;

/** The figures of a turn while it is under way. */
interface Turn {
  readonly until: number;
  readonly latencies: number[];
  bytes: number;
}

/** Sends requests over one connection until the turn is over. */
function sendInTurn(url: string, nextRequest: () => string, turn: Turn): Promise<void> {
  const { hostname, port } = new URL(url);
  const socket = connect({ host: hostname, port: Number(port), noDelay: true });
  return new Promise((resolve, reject) => {
    let sentAt = 0;
    let head = '';
    /** Bytes of the response that are still to come; undefined before its head is whole. */
    let left: number | undefined;
    const send = () => {
      if (performance.now() >= turn.until) {
        socket.end();
        resolve();
        return;
      }
      left = undefined;
      head = '';
      sentAt = performance.now();
      socket.write(nextRequest(), 'latin1');
    };
    socket.on('connect', send);
    socket.on('error', reject);
    socket.on('close', () => reject(new Error(`${url} closed a connection`)));
    socket.on('data', (chunk) => {
      let length = chunk.length;
      if (left === undefined) {
        head += chunk.toString('latin1', 0, Math.min(length, 2_000));
        const end = head.indexOf('\r\n\r\n');
        if (end === -1) return;
        left = bodyLength(head);
        // A head that came in two parts had no body in the first one.
        length -= end + 4 - (head.length - Math.min(chunk.length, 2_000));
      }
      left -= length;
      turn.bytes += length;
      if (left > 0) return;
      turn.latencies.push(performance.now() - sentAt);
      send();
    });
  });
}

function bodyLength(head: string): number {
  const [, length] = /^content-length: *(\d+)/im.exec(head) ?? [];
  if (!head.startsWith('HTTP/1.1 200 ') || length === undefined)
    throw new Error(`an unexpected response: ${head}`);
  return Number(length);
}

async function loadFor(url: string, workload: WorkloadName, tokens: readonly string[]): Promise<LoadResult> {
  const { head, body } = WORKLOADS[workload];
  const { host } = new URL(url);
  const requests = (tokens.length > 0 ? tokens : ['']).map(
    (token) =>
      `${head}\r\nhost: ${host}\r\naccept: */*\r\n${token && `authorization: Bearer ${token}\r\n`}\r\n${body}`,
  );
  let next = 0;
  const nextRequest = () => requests[next++ % requests.length]!;
  const startedAt = performance.now();
  const turn: Turn = { until: startedAt + TURN, latencies: [], bytes: 0 };
  await Promise.all(Array.from({ length: CONNECTIONS[workload] }, () => sendInTurn(url, nextRequest, turn)));
  const seconds = (performance.now() - startedAt) / 1_000;
  const requestCount = turn.latencies.length;
  return {
    perSecond: requestCount / seconds,
    p99: percentile(turn.latencies, 0.99),
    requests: requestCount,
    bytesPerSecond: turn.bytes / seconds,
  };
}

async function createTokens(key: JWK): Promise<string[]> {
  const privateKey = await importJWK(key, 'ES256');
  const sign = (_: unknown, index: number) =>
    new SignJWT({ scope: 'read write' })
      .setProtectedHeader({ alg: 'ES256', kid: key.kid!, typ: 'at+jwt' })
      .setIssuer(ISSUER.issuer)
      .setAudience(ISSUER.audience)
      .setSubject(`user-${index}`)
      .setIssuedAt()
      .setExpirationTime('1h')
      .sign(privateKey);
  return Promise.all(Array.from({ length: TOKENS }, sign));
}

await play<LoadTask>(async ({ urls, key }) => {
  const tokens = await createTokens(key);
  const questions: Record<string, () => Promise<LoadResult>> = {};
  for (const [name, url] of Object.entries(urls)) {
    for (const workload of Object.keys(WORKLOADS) as WorkloadName[])
      questions[`${name} ${workload}`] = () =>
        loadFor(url, workload, name === 'holdfastWithTokens' ? tokens : []);
  }
  return questions;
});
