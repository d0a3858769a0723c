import { subscribe, unsubscribe } from 'node:diagnostics_channel';
import { onTestFinished } from 'vitest';
import type { DiagnosticsMessage } from '../../src/index.ts';

/** Collects the events that are published on a channel until the test ends. */
export function collectEvents(channel: string): unknown[] {
  const events: unknown[] = [];
  const listener = (message: unknown) => void events.push((message as DiagnosticsMessage).event);
  subscribe(channel, listener);
  onTestFinished(() => void unsubscribe(channel, listener));
  return events;
}
