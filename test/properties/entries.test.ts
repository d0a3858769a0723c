import fc from 'fast-check';
import { describe, expect, it, onTestFinished, vi } from 'vitest';
import {
  RetryBudget,
  requestContextFrom,
  runWithRequestContext,
  ServiceClient,
  type ServiceOptions,
  StaticServiceDiscovery,
} from '../../src/index.ts';
import { rejectionOf } from '../policies/helpers.ts';
import { type Entry, type EntryRequest, entries, valuesOf } from '../support/entries.ts';
import { type Handler, startServer, type TestServer } from '../support/server.ts';

const service = 'user-service';
const TRACEPARENT = '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01';

/** The headers that Holdfast sets beside those of the caller, each with a value of the caller's own. */
const SET_BESIDE: Readonly<Record<string, string>> = {
  'x-request-id': 'own-id',
  'x-service-name': 'own-name',
  traceparent: '00-11111111111111111111111111111111-2222222222222222-00',
  tracestate: 'own=1',
  'x-request-timeout': '500',
};

const fine: Handler = (request, response) => {
  request.resume().on('end', () => response.end('fine'));
};

const unavailable: Handler = (request, response) => {
  request.resume().on('end', () => response.writeHead(503).end());
};

interface Serving {
  readonly client: ServiceClient;
  readonly server: TestServer;
  readonly discovery: StaticServiceDiscovery;
}

async function serving(handler: Handler = fine, defaults: ServiceOptions = {}): Promise<Serving> {
  const server = await startServer(handler);
  const discovery = new StaticServiceDiscovery({ [service]: [server.origin] });
  const client = new ServiceClient({ discovery, callerName: 'order-service', defaults });
  onTestFinished(() => client.close());
  return { client, server, discovery };
}

/** Sends a request while one is being served whose caller has sent all that is passed on. */
async function sendServing(
  entry: Entry,
  client: ServiceClient,
  request: EntryRequest,
  limit = '10000',
): Promise<void> {
  const incoming = {
    'x-request-id': 'passed-on',
    traceparent: TRACEPARENT,
    tracestate: 'vendor=1',
    'x-request-timeout': limit,
  };
  await runWithRequestContext(requestContextFrom(incoming), () => entry.send(client, request));
}

/** The errors that lie beneath one, itself included. */
function causesOf(error: unknown): unknown[] {
  return error instanceof Error ? [error, ...causesOf(error.cause)] : [];
}

/** `performance.now()` as if time had passed; gives how to let it pass. */
function jumpingClock(): (milliseconds: number) => void {
  let passed = 0;
  const now = performance.now.bind(performance);
  const clock = vi.spyOn(performance, 'now').mockImplementation(() => now() + passed);
  onTestFinished(() => clock.mockRestore());
  return (milliseconds) => {
    passed += milliseconds;
  };
}

const inAnyCase = (name: string) =>
  fc
    .array(fc.boolean(), { minLength: name.length, maxLength: name.length })
    .map((upper) => Array.from(name, (letter, at) => (upper[at] ? letter.toUpperCase() : letter)).join(''));

describe.each(entries)('$name', (entry) => {
  it('sends once what Holdfast sets beside the headers of the caller, whose own values stand', async () => {
    const { client, server } = await serving();
    const names = Object.keys(SET_BESIDE);
    const chosen = fc.record({
      own: fc.subarray(names).chain((own) => fc.tuple(...own.map(inAnyCase))),
      method: fc.constantFrom('GET', 'POST'),
    });
    await fc.assert(
      fc.asyncProperty(chosen, async ({ own, method }) => {
        const headers = Object.fromEntries(own.map((name) => [name, SET_BESIDE[name.toLowerCase()]!]));
        const body = method === 'POST' ? { body: 'order' } : {};
        await sendServing(entry, client, { service, method, headers, ...body });
        const received = server.requests.at(-1)!;
        const given = new Set(own.map((name) => name.toLowerCase()));
        for (const name of names) {
          const values = valuesOf(received, name);
          // A state belongs to its own parent.
          const foreign = name === 'tracestate' && given.has('traceparent') && !given.has(name);
          expect(values).toHaveLength(foreign ? 0 : 1);
          // Of time limits the least counts, and it has begun.
          if (name === 'x-request-timeout') {
            expect(Number(values[0])).toBeGreaterThan(0);
            expect(Number(values[0])).toBeLessThanOrEqual(given.has(name) ? 500 : 10_000);
          } else if (given.has(name)) expect(values).toEqual([SET_BESIDE[name]]);
          else expect(values).not.toEqual([SET_BESIDE[name]]);
        }
        for (const name of ['host', 'content-type', 'content-length', 'accept', 'accept-encoding']) {
          expect(valuesOf(received, name).length).toBeLessThanOrEqual(1);
        }
        expect(valuesOf(received, 'idempotency-key')).toEqual([]);
      }),
      { numRuns: 20 },
    );
  });

  it('sends the least of the time limits once, however the caller says its own', async () => {
    const { client, server } = await serving();
    const given = fc.record({
      name: inAnyCase('x-request-timeout'),
      own: fc.constantFrom<[string, number]>(
        ['500', 500],
        ['10001', 10_000],
        ['99999, 700', 700],
        ['soon', 10_000],
        [' ', 10_000],
        ['-1', 10_000],
      ),
    });
    await fc.assert(
      fc.asyncProperty(given, async ({ name, own: [value, most] }) => {
        await sendServing(entry, client, { service, headers: { [name]: value } });
        const values = valuesOf(server.requests.at(-1)!, 'x-request-timeout');
        expect(values).toHaveLength(1);
        expect(Number(values[0])).toBeGreaterThan(most > 5_000 ? 5_000 : 0);
        expect(Number(values[0])).toBeLessThanOrEqual(most);
      }),
      { numRuns: 15 },
    );
  });

  it('sends a POST once where its Idempotency-Key is blank, and as often as it may where it has one', async () => {
    const { client, server } = await serving(unavailable, {
      retry: { backoff: () => 0, budget: new RetryBudget({ ratio: 10 }) },
      circuitBreaker: false,
    });
    const attemptsWith = async (key: string, name: string) => {
      const before = server.requests.length;
      await entry
        .send(client, { service, method: 'POST', headers: { [name]: key }, body: 'order' })
        .catch(() => {});
      const received = server.requests.slice(before);
      for (const request of received) {
        expect(valuesOf(request, 'idempotency-key').length).toBeLessThanOrEqual(1);
      }
      return received.length;
    };
    const blank = fc.constantFrom('', ' ', '\t', ' \t ');
    await fc.assert(
      fc.asyncProperty(blank, inAnyCase('idempotency-key'), async (key, name) => {
        expect(await attemptsWith(key, name)).toBe(1);
        expect(await attemptsWith('order-1', name)).toBe(entry.name.startsWith('createHttpAgent') ? 1 : 3);
      }),
      { numRuns: 8 },
    );
  });

  it('sends the deadline of the request that is being served', async () => {
    const { client, server } = await serving();
    await sendServing(entry, client, { service });
    const [left, ...others] = valuesOf(server.requests[0]!, 'x-request-timeout');
    expect(Number(left)).toBeGreaterThan(5_000);
    expect(Number(left)).toBeLessThanOrEqual(10_000);
    expect(others).toEqual([]);
  });

  it.each<[string, string | string[], number, number]>([
    ['less', '5000', 3_000, 5_000],
    ['more', '99999', 8_000, 10_000],
    ['several times, once less', ['99999', '5000'], 3_000, 5_000],
    ['as a list', '7000, 5000, 6000', 3_000, 5_000],
    ['not well formed', 'soon', 8_000, 10_000],
  ])('sends the lesser time limit once where the caller says %s', async (_how, value, min, max) => {
    const { client, server } = await serving();
    await sendServing(entry, client, { service, headers: { 'X-Request-Timeout': value } });
    const sent = valuesOf(server.requests[0]!, 'x-request-timeout');
    expect(sent).toHaveLength(1);
    expect(Number(sent[0])).toBeGreaterThanOrEqual(min);
    expect(Number(sent[0])).toBeLessThanOrEqual(max);
    expect(requestContextFrom(server.requests[0]!.headers).deadline).not.toBe(Infinity);
  });

  it('sends what is left of the time limit of the caller, however long an instance was waited for', async () => {
    const { client, server, discovery } = await serving();
    const jump = jumpingClock();
    const instances = discovery.instances.bind(discovery);
    vi.spyOn(discovery, 'instances').mockImplementation((name) => {
      jump(2_000);
      return instances(name);
    });
    await entry.send(client, { service, headers: { 'X-Request-Timeout': '5000' } });
    expect(Number(valuesOf(server.requests[0]!, 'x-request-timeout')[0])).toBeLessThanOrEqual(3_000);
  });

  it('sends the time limit of the caller where the client has none', async () => {
    const { client, server } = await serving(fine, { timeout: false, attemptTimeout: false });
    await entry.send(client, { service, headers: { 'X-Request-Timeout': '5000' } });
    const [left, ...others] = valuesOf(server.requests[0]!, 'x-request-timeout');
    expect(Number(left)).toBeLessThanOrEqual(5_000);
    expect(others).toEqual([]);
  });

  it.each<[string, ServiceOptions]>([
    ['with its timeouts', {}],
    ['without any timeout', { timeout: false, attemptTimeout: false, retry: false }],
  ])('rejects what is late by the time limit of its caller, %s', async (_how, options) => {
    const { client, server } = await serving((request) => void request.resume(), options);
    const headers = { 'x-request-timeout': '60' };
    const error = await rejectionOf(entry.send(client, { service, headers }));
    expect(causesOf(error)).toContainEqual(expect.objectContaining({ code: 'ERR_DEADLINE_EXCEEDED' }));
    expect(server.requests.length).toBeLessThanOrEqual(1);
  });

  it.each(['0', '5000, 0'])('rejects a time limit that has passed, and sends nothing: %s', async (value) => {
    for (const options of [{}, { timeout: false, attemptTimeout: false } as const]) {
      const { client, server } = await serving(fine, options);
      const headers = { 'x-request-timeout': value };
      const error = await rejectionOf(entry.send(client, { service, headers }));
      expect(causesOf(error)).toContainEqual(expect.objectContaining({ code: 'ERR_DEADLINE_EXCEEDED' }));
      expect(server.requests).toEqual([]);
    }
  });

  it('makes no retry that would begin past the time limit of the caller', async () => {
    const { client, server } = await serving(
      (request, response) => {
        request.resume();
        response.writeHead(503).end();
      },
      { retry: { backoff: () => 20_000 } },
    );
    await entry.send(client, { service, headers: { 'x-request-timeout': '10000' } }).catch(() => {});
    expect(server.requests).toHaveLength(1);
  });

  it('sends an idempotency key of the headers once, as it is', async () => {
    const { client, server } = await serving();
    const headers = { 'Idempotency-Key': 'order-1' };
    await entry.send(client, { service, method: 'POST', headers });
    expect(valuesOf(server.requests[0]!, 'idempotency-key')).toEqual(['order-1']);
  });

  it.each<[string, string | string[]]>([
    ['one is blank', ['order-1', '']],
    ['the first is blank', ['', 'order-1']],
    ['they are two', ['order-1', 'order-2']],
    ['they are one text', 'order-1, order-2'],
    ['it is blank', '" "'],
  ])('never sends a POST twice whose idempotency keys no service could tell: %s', async (_how, value) => {
    const { client, server } = await serving(
      (request, response) => {
        request.resume();
        response.writeHead(503).end();
      },
      { retry: { backoff: () => 0 } },
    );
    const headers = { 'Idempotency-Key': value };
    await entry.send(client, { service, method: 'POST', headers }).catch(() => {});
    // axios makes one key of two, with which a service can tell a request.
    const joined = entry.name.startsWith('axios') && String(value) === 'order-1,order-2';
    expect(server.requests.length).toBeLessThanOrEqual(joined ? 3 : 1);
    for (const request of server.requests) {
      expect(valuesOf(request, 'idempotency-key')).toHaveLength(1);
    }
  });

  if (!entry.takesKey) return;
  it('sends the key of the request that a call compensates, beside its own, as it is', async () => {
    const { client, server } = await serving();
    const headers = {
      'Idempotency-Key': 'o1:pay:compensate',
      'Compensates-Key': 'o1:pay:invoke',
      authorization: 'Bearer a',
    };
    for (const method of ['POST', 'DELETE']) {
      await sendServing(entry, client, { service, method, headers });
      const received = server.requests.at(-1)!;
      expect(valuesOf(received, 'compensates-key')).toEqual(['o1:pay:invoke']);
      expect(valuesOf(received, 'idempotency-key')).toEqual(['o1:pay:compensate']);
    }
  });

  it('sends the idempotencyKey of a call once, whatever its headers say', async () => {
    const { client, server } = await serving();
    await fc.assert(
      fc.asyncProperty(inAnyCase('idempotency-key'), async (name) => {
        const headers = { [name]: 'another', 'Idempotency-KEY': 'other' };
        await entry.send(client, { service, method: 'POST', headers, idempotencyKey: 'order-1' });
        expect(valuesOf(server.requests.at(-1)!, 'idempotency-key')).toEqual(['order-1']);
      }),
      { numRuns: 5 },
    );
  });
});

it('each attempt is told what is left of the time limit of the caller', async () => {
  const jump = jumpingClock();
  const { client, server } = await serving(
    (request, response) => {
      request.resume();
      jump(1_000);
      response.writeHead(server.requests.length === 1 ? 503 : 200).end();
    },
    { retry: { backoff: () => 0 } },
  );
  await client.call({ service, path: '/', headers: { 'x-request-timeout': '5000' } });
  const [first, second] = server.requests.map((request) => Number(valuesOf(request, 'x-request-timeout')[0]));
  expect(first).toBeLessThanOrEqual(5_000);
  expect(second).toBeLessThanOrEqual(first! - 1_000);
});

it('a redirect that a fetch follows is told what is left of the time limit of the caller', async () => {
  const jump = jumpingClock();
  const { client, server } = await serving((request, response) => {
    request.resume();
    jump(1_000);
    if (request.url === '/') response.writeHead(307, { location: '/elsewhere' }).end();
    else response.end('fine');
  });
  await (await client.fetch(`http://${service}/`, { headers: { 'x-request-timeout': '5000' } })).text();
  const [, second] = server.requests.map((request) => Number(valuesOf(request, 'x-request-timeout')[0]));
  expect(second).toBeLessThanOrEqual(4_000);
  expect(second).toBeGreaterThan(2_000);
});

it('an idempotency key of which no service could tell a request is no leave to send a POST again', async () => {
  const { client, server } = await serving((request, response) => {
    request.resume();
    response.writeHead(503).end();
  });
  for (const key of [' ', '""', '"  "', 'a, b', 'a b', ',a', 'a,', '"a", "b"']) {
    const before = server.requests.length;
    const headers = { 'idempotency-key': key };
    await client.request({ service, path: '/', method: 'POST', headers });
    expect(server.requests).toHaveLength(before + 1);
  }
});

it('headers that say several idempotency keys are rejected, and the same one several times is one', async () => {
  const { client, server } = await serving();
  const call = { service, path: '/', method: 'POST' };
  for (const keys of [
    ['k1', 'k2'],
    ['k1', ''],
    ['', 'k1'],
  ]) {
    const error = await rejectionOf(client.call({ ...call, headers: { 'idempotency-key': keys } }));
    expect(error).toMatchObject({
      code: 'ERR_INVALID_REQUEST',
      message: expect.stringMatching(/one Idempotency-Key/),
    });
  }
  expect(server.requests).toEqual([]);
  await client.call({ ...call, headers: { 'idempotency-key': ['k1', 'k1'] } });
  expect(valuesOf(server.requests[0]!, 'idempotency-key')).toEqual(['k1']);
});
