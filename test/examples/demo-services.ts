import { randomUUID } from 'node:crypto';
import { onTestFinished } from 'vitest';
import type { Events } from '../../examples/demo/events.ts';
import { type Instance, startInstance } from '../../examples/demo/service.ts';
import {
  type DomainEvent,
  type EventOf,
  InMemoryEventBus,
  InMemoryServiceDiscovery,
  type NewEvent,
} from '../../src/index.ts';
import { Recorder } from '../events/recorder.ts';
import type { TestDatabase } from '../support/postgres.ts';

/** One service of the demo, alone. */
export interface TestService {
  readonly instance: Instance;
  readonly bus: InMemoryEventBus<Events>;
  readonly origin: string;
  /** Gives the parsed response. Each request has a key of its own, unless the headers have one. */
  request(
    method: string,
    path: string,
    body?: unknown,
    headers?: Record<string, string>,
  ): Promise<TestResponse>;
  /** Records the events that match a pattern. */
  record(pattern: keyof Events): Promise<Recorder>;
}

export interface TestResponse {
  readonly status: number;
  readonly type: string | null;
  /** Whether it is the response of an earlier request. */
  readonly replayed: boolean;
  // biome-ignore lint/suspicious/noExplicitAny: each test knows what it looks at
  readonly body: any;
}

/** Starts a service, which ends with the test. */
export async function startService(service: string, database: TestDatabase): Promise<TestService> {
  const discovery = new InMemoryServiceDiscovery();
  const bus = new InMemoryEventBus<Events>({ source: 'test' });
  const instance = await startInstance(service, { discovery, bus, databaseUrl: database.url, tell() {} });
  onTestFinished(async () => {
    await instance.stop();
    await bus.close();
    await discovery.close();
  });
  const [registered] = await discovery.instances(service);
  const origin = `http://${registered!.host}:${registered!.port}`;
  return {
    instance,
    bus,
    origin,
    async request(method, path, body, headers = {}) {
      const response = await fetch(`${origin}${path}`, {
        method,
        headers: {
          'idempotency-key': randomUUID(),
          ...(body === undefined ? {} : { 'content-type': 'application/json' }),
          ...headers,
        },
        body: body === undefined ? undefined : JSON.stringify(body),
      });
      const text = await response.text();
      const type = response.headers.get('content-type');
      const replayed = response.headers.has('idempotent-replayed');
      return { status: response.status, type, replayed, body: text === '' ? undefined : JSON.parse(text) };
    },
    async record(pattern) {
      const recorder = new Recorder();
      await bus.subscribe(pattern, recorder.handle, { group: 'test' });
      return recorder;
    },
  };
}

/** Publishes an event, perhaps again, and waits until this number of groups has handled it. */
export async function deliver(
  bus: InMemoryEventBus<Events>,
  event: EventOf<Events>,
  groupCount = 1,
): Promise<void> {
  const groups = new Set<string | undefined>();
  await new Promise<void>((resolve) => {
    const listener = (handled: { event: DomainEvent; group: string | undefined }) => {
      if (handled.event.eventId !== event.eventId) return;
      groups.add(handled.group);
      if (groups.size < groupCount) return;
      bus.off('handle', listener);
      resolve();
    };
    bus.on('handle', listener);
    void bus.publish(event as NewEvent<Events>);
  });
}
