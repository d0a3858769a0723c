import { request } from 'undici';
import { describe, expect, it, vi } from 'vitest';
import {
  Bulkhead,
  CircuitBreaker,
  createDispatcher,
  createFetch,
  type Policy,
  Retry,
  type ServiceClient,
  Timeout,
} from '../../src/index.ts';
import { clientOf, echo, service } from '../client/fetching.ts';
import { rejectionOf } from '../policies/helpers.ts';
import { startServer } from '../support/server.ts';

/** What no option of a call may be. */
const WRONG: Readonly<Record<string, readonly unknown[]>> = {
  timeout: [0, -1, Number.NaN, 2 ** 31, '500', null, true, {}],
  retries: [-1, 1.5, Number.NaN, '2', null, true, {}],
  hashKey: ['', 5, null, {}],
  select: ['v2', 5, null, [], { version: 2 }],
  signal: ['', 0, false, 'abort', {}, new AbortController(), () => {}],
  idempotencyKey: ['', ' ', 'a b', 5, null, {}],
};

const LENGTH = { maxResponseSize: [0, -1, 1.5, '5', null] };

interface Entry {
  readonly name: string;
  readonly wrong: Readonly<Record<string, readonly unknown[]>>;
  send(client: ServiceClient, option: object): Promise<unknown>;
}

/** The entries whose requests can be given options. A new one is covered when it is added here. */
const entries: readonly Entry[] = [
  {
    name: 'client.call()',
    wrong: { ...WRONG, ...LENGTH },
    send: (client, option) => client.call({ service, path: '/', ...option }),
  },
  {
    name: 'client.request()',
    wrong: { ...WRONG, ...LENGTH },
    send: (client, option) => client.request({ service, path: '/', ...option }),
  },
  {
    name: 'createFetch()',
    wrong: WRONG,
    send: (client, option) => createFetch(client)(`http://${service}/`, option),
  },
  {
    name: 'client.relay()',
    wrong: WRONG,
    send: (client, option) =>
      new Promise((resolve, reject) => {
        const onResponseError = (_controller: unknown, error: Error) => reject(error);
        client.relay({ service, path: '/', ...option }, { onResponseError, onResponseEnd: resolve });
      }),
  },
  {
    name: "createDispatcher() in undici's request",
    // undici itself looks at the signal.
    wrong: Object.fromEntries(Object.entries(WRONG).filter(([option]) => option !== 'signal')),
    send: (client, option) =>
      request(`http://${service}/`, { dispatcher: createDispatcher(client), ...option } as object),
  },
];

const cases = entries.flatMap((entry) =>
  Object.entries(entry.wrong).map(([option, values]) => ({ ...entry, option, values })),
);

describe.each(cases)('$name', ({ send, option, values }) => {
  it(`rejects what is no ${option}, sends nothing, and can be closed afterwards`, async () => {
    const server = await startServer(echo);
    const client = clientOf([server]);
    for (const value of values) {
      const error = await rejectionOf(send(client, { [option]: value }));
      const refusal = (error as { code?: string }).code === undefined ? (error as Error).cause : error;
      expect(refusal).toMatchObject({
        code: 'ERR_INVALID_REQUEST',
        message: expect.stringContaining(option),
      });
    }
    expect(server.requests).toEqual([]);
    await client.close();
  });
});

describe('a signal', () => {
  const policies: readonly Policy[] = [
    new Timeout(1_000),
    new Retry(),
    new Bulkhead({ maxConcurrent: 1 }),
    new CircuitBreaker(),
  ];

  it('that is none is named by any policy, and takes no place of it', async () => {
    for (const policy of policies) {
      for (const signal of ['', 0, {}, new AbortController()]) {
        const call = async () => policy.execute(() => 'value', { signal: signal as AbortSignal });
        const error = await rejectionOf(call());
        expect(error).toBeInstanceOf(TypeError);
        expect(error).toMatchObject({ message: expect.stringContaining('must be an AbortSignal') });
      }
      await expect(policy.execute(() => 'value', { signal: null as never })).resolves.toBe('value');
    }
  });

  it('of another realm cancels as any other', async () => {
    const server = await startServer((incoming) => void incoming.resume());
    const client = clientOf([server]);
    const own = new AbortController();
    const signal = {
      get aborted() {
        return own.signal.aborted;
      },
      get reason() {
        return own.signal.reason;
      },
      addEventListener: own.signal.addEventListener.bind(own.signal),
      removeEventListener: own.signal.removeEventListener.bind(own.signal),
    } as AbortSignal;
    const call = client.call({ service, path: '/', signal });
    await vi.waitFor(() => expect(server.requests).toHaveLength(1));
    own.abort(new Error('enough'));
    await expect(call).rejects.toThrow('enough');
  });
});

it('a policy of the user that throws leaves nothing under way', async () => {
  const broken = {
    execute(): never {
      throw new Error('broken');
    },
  };
  const client = clientOf([await startServer(echo)], { fallback: broken as never });
  await expect(client.call({ service, path: '/' })).rejects.toThrow('broken');
  await client.close();
});
