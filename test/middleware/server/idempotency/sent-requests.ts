import { expect } from 'vitest';
import { Admission } from '../../../../src/middleware/server/guard/admission.ts';
import {
  ServerGuard,
  type ServerGuardOptions,
} from '../../../../src/middleware/server/guard/server-guard.ts';
import type { BodyHash } from '../../../../src/middleware/server/idempotency/body-hash.ts';
import type { IdempotencyOptions } from '../../../../src/middleware/server/idempotency/idempotency-options.ts';
import type { IdempotencyStore } from '../../../../src/middleware/server/idempotency/idempotency-store.ts';
import { InMemoryIdempotencyStore } from '../../../../src/middleware/server/idempotency/in-memory-idempotency-store.ts';
import { AbortScope } from '../../../../src/policies/abort.ts';
import { follow } from '../../../policies/helpers.ts';

/** A request to send: by default a POST without a body. */
export interface Sent {
  method?: string;
  target?: string;
  headers?: Record<string, string>;
  body?: string;
  /** Whether the client goes away before the body has arrived. Default false. */
  cutOff?: boolean;
}

/** Sends a request with the key `k`; gives the decision about it, once there is one. */
export function send(
  guard: ServerGuard,
  { method = 'POST', target = '/orders', headers, body = '', cutOff = false }: Sent = {},
) {
  const disconnected = new AbortScope(undefined, { onAbort() {} });
  const read = async (hash: BodyHash) => {
    hash.update(Buffer.from(body));
    hash.end();
  };
  const request = { method, path: target, headers: { 'idempotency-key': '"k"', ...headers } };
  const call = follow(
    Promise.resolve(
      guard.admit({ request, target, disconnected, body: { observe: read, read, isCutOff: () => cutOff } }),
    ),
  );
  return {
    disconnected,
    get decision(): unknown {
      return call.outcome?.ok ? call.outcome.value : call.outcome?.error;
    },
    get admission(): Admission {
      expect(this.decision).toBeInstanceOf(Admission);
      return this.decision as Admission;
    },
    /** Has the handler respond. */
    respond(status = 201, text = 'done'): Promise<void> {
      return this.admission.keyLock!.complete({
        status,
        headers: { 'x-own': 'yes' },
        body: Buffer.from(text),
      });
    },
  };
}

export function toGuard(idempotency: IdempotencyOptions = {}, options: ServerGuardOptions = {}) {
  return new ServerGuard({ idempotency, random: () => 0, ...options });
}

export const handled = expect.any(Admission);
export const replayed = expect.objectContaining({ status: 201, body: Buffer.from('done') });
export const rejected = (status: number, code: string) => ({
  status,
  body: expect.stringContaining(`"${code}"`),
});
export const inProgress = rejected(409, 'ERR_IDEMPOTENCY_KEY_IN_PROGRESS');

/** A store that is unavailable while the test says so. */
export function shaky() {
  const store = new InMemoryIdempotencyStore();
  const state = { away: false, calls: [] as string[] };
  const check = (name: string) => {
    state.calls.push(name);
    if (state.away) throw new Error('the store is unavailable');
  };
  const proxy: IdempotencyStore = {
    async begin(...args) {
      check('begin');
      return store.begin(...args);
    },
    async complete(...args) {
      check('complete');
      return store.complete(...args);
    },
    async release(...args) {
      check('release');
      return store.release(...args);
    },
    async compensate(...args) {
      check('compensate');
      return store.compensate(...args);
    },
  };
  return Object.assign(state, { store: proxy });
}
