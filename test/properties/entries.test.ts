import fc from 'fast-check';
import { describe, expect, it, onTestFinished } from 'vitest';
import {
  RetryBudget,
  requestContextFrom,
  runWithRequestContext,
  ServiceClient,
  StaticServiceDiscovery,
} from '../../src/index.ts';
import { type Entry, type EntryRequest, entries, valuesOf } from '../support/entries.ts';
import { startServer, type TestServer } from '../support/server.ts';

const service = 'user-service';
const TRACEPARENT = '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01';

/** What Holdfast sets beside the headers of the caller, and a value of the caller's own. */
const SET_BESIDE: Readonly<Record<string, string>> = {
  'x-request-id': 'own-id',
  'x-service-name': 'own-name',
  traceparent: '00-11111111111111111111111111111111-2222222222222222-00',
  tracestate: 'own=1',
  'x-request-timeout': '500',
};

async function serving(status = 200): Promise<{ client: ServiceClient; server: TestServer }> {
  const server = await startServer((request, response) => {
    request.resume().on('end', () => response.writeHead(status).end('fine'));
  });
  const discovery = new StaticServiceDiscovery({ [service]: [server.origin] });
  const defaults = { retry: { maxAttempts: 3, backoff: () => 0, budget: new RetryBudget({ ratio: 10 }) } };
  const client = new ServiceClient({
    discovery,
    callerName: 'order-service',
    defaults: { ...defaults, circuitBreaker: false },
  });
  onTestFinished(() => client.close());
  return { client, server };
}

/** Sends a request while one is being served whose caller has sent all that is passed on. */
async function sendServing(entry: Entry, client: ServiceClient, request: EntryRequest): Promise<void> {
  const incoming = {
    'x-request-id': 'passed-on',
    traceparent: TRACEPARENT,
    tracestate: 'vendor=1',
    'x-request-timeout': '10000',
  };
  await runWithRequestContext(requestContextFrom(incoming), () => entry.send(client, request));
}

/** call() fails with it, the others give the response. */
function ofStatus(error: unknown): void {
  if ((error as { status?: number }).status !== 503) throw error;
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
    const { client, server } = await serving(503);
    const attemptsWith = async (key: string, name: string) => {
      const before = server.requests.length;
      await entry
        .send(client, { service, method: 'POST', headers: { [name]: key }, body: 'order' })
        .catch(ofStatus);
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
        expect(await attemptsWith('order-1', name)).toBe(entry.once ? 1 : 3);
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

  if (!entry.takesKey) return;
  it('sends the idempotencyKey of a call once, whatever its headers say', async () => {
    const { client, server } = await serving();
    await fc.assert(
      fc.asyncProperty(inAnyCase('idempotency-key'), async (name) => {
        const headers = { [name]: 'another' };
        await entry.send(client, { service, method: 'POST', headers, idempotencyKey: 'order-1' });
        expect(valuesOf(server.requests.at(-1)!, 'idempotency-key')).toEqual(['order-1']);
      }),
      { numRuns: 5 },
    );
  });
});
