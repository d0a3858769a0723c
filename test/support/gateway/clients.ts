import { connect } from 'node:net';
import { setTimeout as pause } from 'node:timers/promises';
import { Agent, Client } from 'undici';
import { seeded } from '../../../bench/support/seeded.ts';

export interface LoadTally {
  readonly sent: number;
  /** The keys of the orders that were sent. */
  readonly ordered: readonly string[];
  /** One line for each request that has failed. */
  readonly failures: readonly string[];
}

/** Milliseconds that a connection is idle between two requests, at most. */
const IDLE = 600;

/** Sends GET and POST with a key in turn over each of many connections, until it is ended. */
export class SteadyLoad {
  readonly #workers: Promise<void>[];
  readonly #ordered: string[] = [];
  readonly #failures: string[] = [];
  #sent = 0;
  #ended = false;

  constructor(url: string, connections: number, seed: number) {
    const random = seeded(seed);
    this.#workers = Array.from({ length: connections }, (_, index) => this.#work(url, index, random));
  }

  async end(): Promise<LoadTally> {
    this.#ended = true;
    await Promise.all(this.#workers);
    return { sent: this.#sent, ordered: this.#ordered, failures: this.#failures };
  }

  async #work(url: string, index: number, random: () => number): Promise<void> {
    const client = new Client(url);
    for (let turn = 0; !this.#ended; turn++) {
      await pause(IDLE * random());
      const id = `order-${index}-${turn}`;
      const isOrder = (index + turn) % 2 === 0;
      this.#sent++;
      if (isOrder) this.#ordered.push(id);
      await this.#request(client, isOrder ? id : undefined);
    }
    await client.close();
  }

  async #request(client: Client, id: string | undefined): Promise<void> {
    const order = {
      method: 'POST',
      headers: { 'content-type': 'application/json', 'idempotency-key': id },
      body: JSON.stringify({ id }),
    } as const;
    try {
      const { statusCode, body } = await client.request({
        path: '/orders',
        ...(id === undefined ? { method: 'GET' } : order),
      });
      const text = await body.text();
      if (statusCode !== 200) this.#failures.push(`${statusCode} ${text}`);
    } catch (error) {
      this.#failures.push(String(error));
    }
  }
}

const ABANDONED_AT_ONCE = 50;
const HEAD = 'HTTP/1.1\r\nhost: shop.example\r\n';
/** Requests that never end well, each for another stage at which its client leaves. */
const ABANDONED = [
  `GET /hold ${HEAD}\r\n`,
  `GET /begin ${HEAD}\r\n`,
  `GET /bytes/10000000 ${HEAD}\r\n`,
  `POST /orders ${HEAD}content-length: 60000\r\n\r\nhalf`,
  `POST /hold ${HEAD}content-length: 900000\r\n\r\n${'x'.repeat(100_000)}`,
  `POST /hold ${HEAD}transfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n`,
  'GET /hold HTTP/1.1\r\nhost: sh',
];

/** Sends requests over a connection each, and leaves within a few milliseconds. */
export async function abandonRequests(url: string, count: number, seed: number): Promise<void> {
  const random = seeded(seed);
  let next = 0;
  const work = async () => {
    for (let index = next++; index < count; index = next++) {
      await abandon(url, ABANDONED[index % ABANDONED.length]!, random);
    }
  };
  await Promise.all(Array.from({ length: ABANDONED_AT_ONCE }, work));
}

async function abandon(url: string, request: string, random: () => number): Promise<void> {
  const { hostname, port } = new URL(url);
  const socket = connect(Number(port), hostname);
  const closed = new Promise((resolve) => socket.on('close', resolve));
  socket.on('error', () => {});
  socket.on('connect', () => socket.write(request, 'latin1'));
  await pause(2 + 10 * random());
  if (random() < 0.5) socket.resetAndDestroy();
  else socket.destroy();
  await closed;
}

/** Sends requests at once, and counts the responses by their status. */
export async function countStatuses(
  url: string,
  path: string,
  count: number,
): Promise<Record<string, number>> {
  const statuses: Record<string, number> = {};
  const agent = new Agent();
  const request = async () => {
    const status = await agent.request({ origin: url, path, method: 'GET' }).then(
      async ({ statusCode, body }) => {
        await body.dump();
        return statusCode;
      },
      (error) => String(error),
    );
    statuses[status] = (statuses[status] ?? 0) + 1;
  };
  await Promise.all(Array.from({ length: count }, request));
  await agent.close();
  return statuses;
}
