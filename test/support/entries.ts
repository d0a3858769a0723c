import { type ClientRequest, request as httpRequest, type IncomingMessage } from 'node:http';
import axios from 'axios';
import { onTestFinished } from 'vitest';
import {
  axiosAdapter,
  createDispatcher,
  createFetch,
  createHttpAgent,
  type ServiceClient,
} from '../../src/index.ts';

/** A request as every entry can send it. */
export interface EntryRequest {
  readonly service: string;
  readonly method?: string;
  readonly path?: string;
  /** A list is sent as several lines, where the entry can do that. */
  readonly headers?: Readonly<Record<string, string | string[]>>;
  readonly body?: string;
  /** Not every entry takes it: see `takesKey`. */
  readonly idempotencyKey?: string;
}

/** One of the ways by which a request leaves through a ServiceClient. */
export interface Entry {
  readonly name: string;
  /** Whether a request can be given an `idempotencyKey` besides its headers. */
  readonly takesKey: boolean;
  /** Sends a request, and resolves when its response, of any status, was read to its end. */
  send(client: ServiceClient, request: EntryRequest): Promise<void>;
}

/** As the standard's fetch takes them: it makes one line of several of a name. */
function pairsOf(headers: EntryRequest['headers'] = {}): [string, string][] {
  return Object.entries(headers).flatMap(([name, values]) =>
    [values].flat().map((value): [string, string] => [name, value]),
  );
}

/** All entries that send headers. A new one is covered by the tests of all when it is added here. */
export const entries: readonly Entry[] = [
  {
    name: 'client.call()',
    takesKey: true,
    async send(client, request) {
      await client.call({ path: '/', ...request });
    },
  },
  {
    name: 'client.request()',
    takesKey: true,
    async send(client, request) {
      const { body } = await client.request({ path: '/', ...request });
      await body.resume().toArray();
    },
  },
  {
    name: 'createFetch()',
    takesKey: true,
    async send(client, { service, path = '/', headers, ...init }) {
      const own = { ...init, headers: pairsOf(headers) };
      const response = await createFetch(client)(`http://${service}${path}`, own);
      await response.text();
    },
  },
  {
    name: "createDispatcher() in undici's request",
    takesKey: true,
    async send(client, { service, path = '/', ...options }) {
      const { request } = await import('undici');
      const dispatcher = createDispatcher(client);
      const given = { dispatcher, ...options } as Parameters<typeof request>[1];
      const { body } = await request(`http://${service}${path}`, given);
      await body.text();
    },
  },
  {
    name: "createDispatcher() in undici's fetch",
    takesKey: false,
    async send(client, { service, path = '/', method, headers, body }) {
      const { fetch } = await import('undici');
      const dispatcher = createDispatcher(client);
      const init = { dispatcher, method, headers: pairsOf(headers), body } as RequestInit;
      await (await fetch(`http://${service}${path}`, init as Parameters<typeof fetch>[1])).text();
    },
  },
  {
    name: 'createDispatcher() in the built-in fetch',
    takesKey: false,
    async send(client, { service, path = '/', method, headers, body }) {
      const dispatcher = createDispatcher(client);
      const init = { dispatcher, method, headers: pairsOf(headers), body } as RequestInit;
      await (await fetch(`http://${service}${path}`, init)).text();
    },
  },
  {
    name: 'axiosAdapter()',
    takesKey: true,
    async send(client, { service, path = '/', method, headers, body, idempotencyKey }) {
      const api = axios.create({ adapter: axiosAdapter(client), validateStatus: null });
      const fetchOptions = idempotencyKey === undefined ? {} : { idempotencyKey };
      await api.request({ url: `http://${service}${path}`, method, headers, data: body, fetchOptions });
    },
  },
  {
    name: 'createHttpAgent() in node:http',
    takesKey: false,
    send: (client, request) => sendByAgent(client, request, () => {}),
  },
  {
    // Then the head is text by the time that the agent has a connection.
    name: 'createHttpAgent() in node:http, the head being written at once',
    takesKey: false,
    send: (client, request) => sendByAgent(client, request, (sent) => sent.flushHeaders()),
  },
  {
    name: 'createHttpAgent() in node:http, the headers being set later',
    takesKey: false,
    send: (client, { headers = {}, ...request }) => {
      return sendByAgent(client, request, (sent) => {
        for (const [name, value] of Object.entries(headers)) sent.setHeader(name, value);
      });
    },
  },
];

async function sendByAgent(
  client: ServiceClient,
  { service, path = '/', method, headers, body }: EntryRequest,
  made: (request: ClientRequest) => void,
): Promise<void> {
  const agent = createHttpAgent(client);
  onTestFinished(() => agent.destroy());
  const response = await new Promise<IncomingMessage>((resolve, reject) => {
    const request = httpRequest(`http://${service}${path}`, { agent, method, headers });
    request.on('response', resolve).on('error', reject);
    made(request);
    request.end(body);
  });
  await response.resume().toArray();
}

/** How often a header came in, and with which values, from what Node read of the socket. */
export function valuesOf({ rawHeaders }: IncomingMessage, name: string): string[] {
  const values: string[] = [];
  for (let index = 0; index < rawHeaders.length; index += 2) {
    if (rawHeaders[index]!.toLowerCase() === name) values.push(rawHeaders[index + 1]!);
  }
  return values;
}
