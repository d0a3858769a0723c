import { describe, expect, it, vi } from 'vitest';
import { Bulkhead, CircuitBreaker, type Policy, Retry, Timeout } from '../../src/index.ts';
import { rejectionOf } from '../policies/helpers.ts';
import { echo } from '../support/handlers.ts';
import { clientOf, service } from '../support/mesh-client.ts';
import { CALL_TAKERS } from '../support/options.ts';
import { startServer } from '../support/server.ts';

const cases = CALL_TAKERS.flatMap(({ name, wrong, none, send }) =>
  Object.entries(wrong).map(([option, values]) => ({
    name,
    option,
    values: [...values, null].filter((value) => !none?.[option]?.includes(value)),
    send,
  })),
);

describe.each(cases)('$name', ({ send, option, values }) => {
  it(`rejects what is no ${option}, sends nothing, and can be closed afterwards`, async () => {
    const server = await startServer(echo);
    const client = clientOf([server]);
    for (const value of values) {
      const error = await rejectionOf(send(client, { [option]: value }));
      const rejection = (error as { code?: string }).code === undefined ? (error as Error).cause : error;
      expect(rejection).toMatchObject({ code: 'ERR_INVALID_REQUEST' });
      const holds = typeof value === 'object' && value !== null && Object.keys(value).length > 0;
      // What is wrong within the value is named itself.
      if (!holds) expect((rejection as Error).message).toContain(option);
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
