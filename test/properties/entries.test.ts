import fc from 'fast-check';
import { describe, expect, it, onTestFinished } from 'vitest';
import {
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
};

async function serving(): Promise<{ client: ServiceClient; server: TestServer }> {
  const server = await startServer((request, response) => {
    request.resume().on('end', () => response.end('fine'));
  });
  const discovery = new StaticServiceDiscovery({ [service]: [server.origin] });
  const client = new ServiceClient({ discovery, callerName: 'order-service' });
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
          if (given.has(name)) expect(values).toEqual([SET_BESIDE[name]]);
          else expect(values).not.toEqual([SET_BESIDE[name]]);
        }
        for (const name of ['host', 'content-type', 'content-length', 'accept', 'accept-encoding']) {
          expect(valuesOf(received, name).length).toBeLessThanOrEqual(1);
        }
      }),
      { numRuns: 20 },
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
