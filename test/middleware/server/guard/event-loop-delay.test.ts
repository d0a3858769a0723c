import { expect, it, onTestFinished, vi } from 'vitest';
import { EventLoopDelay } from '../../../../src/middleware/server/guard/event-loop-delay.ts';

function measure(window: number) {
  const delay = new EventLoopDelay(window);
  onTestFinished(() => delay.close());
  expect(delay.current).toBe(0);
  return delay;
}

function block(milliseconds: number): void {
  const until = performance.now() + milliseconds;
  while (performance.now() < until);
}

/** Lets the event loop turn, so that due work is done. */
const turn = () => new Promise<void>((resolve) => setTimeout(resolve, 0));

it('an EventLoopDelay tells how late the event loop is, and that it is in time again', async () => {
  const delay = measure(100);
  await vi.waitFor(() => {
    block(60);
    expect(delay.current).toBeGreaterThan(20);
  });
  await vi.waitFor(() => expect(delay.current).toBeLessThan(15), 3_000);
});

it('an EventLoopDelay notices a loop that is blocked for longer than the window each time', async () => {
  const delay = measure(50);
  const seen: number[] = [];
  for (let round = 0; round < 4; round++) {
    await turn();
    block(120);
    await turn();
    seen.push(delay.current);
  }
  expect(Math.min(...seen.slice(1))).toBeGreaterThan(50);
});

it('an EventLoopDelay notices a block that has not ended yet', async () => {
  const delay = measure(100);
  await turn();
  block(150);
  expect(delay.current).toBeGreaterThan(100);
});

it('an EventLoopDelay measures nothing after it is closed', async () => {
  const delay = measure(10);
  delay.close();
  delay.close();
  block(50);
  await turn();
  expect(delay.current).toBe(0);
});
