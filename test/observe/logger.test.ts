import { expect, it, vi } from 'vitest';
import { fromConsole } from '../../src/index.ts';

/** Gives what a logger of the console writes. */
function written(log: (logger: ReturnType<typeof fromConsole>) => void, level?: 'debug' | 'warn'): unknown[] {
  const lines: unknown[] = [];
  for (const method of ['debug', 'info', 'warn', 'error'] as const) {
    vi.spyOn(console, method).mockImplementation((line) => void lines.push([method, line]));
  }
  log(fromConsole({ level }));
  vi.restoreAllMocks();
  return lines;
}

it('fromConsole writes a line with its level and its fields, by the method of the console for that level', () => {
  const lines = written((logger) => {
    logger.warn(
      { service: 'user-service', failures: 3, error: 'no "way"', none: undefined },
      'instance ejected',
    );
    logger.error({}, 'circuit opened');
  });
  expect(lines).toEqual([
    ['warn', 'holdfast warn: instance ejected service=user-service failures=3 error="no \\"way\\""'],
    ['error', 'holdfast error: circuit opened'],
  ]);
});

it('a value that fromConsole writes ends neither its field nor its line', () => {
  const [line] = written((logger) => logger.info({ path: 'a b=c\nholdfast error: forged' }, 'x')) as [
    string[],
  ];
  expect(line![1]).toBe('holdfast info: x path="a b=c\\nholdfast error: forged"');
});

it('fromConsole writes lines from a level on, which is info by default', () => {
  const log = (logger: ReturnType<typeof fromConsole>) => {
    logger.debug({}, 'a');
    logger.info({}, 'b');
    logger.warn({}, 'c');
  };
  expect(written(log)).toHaveLength(2);
  expect(written(log, 'debug')).toHaveLength(3);
  expect(written(log, 'warn')).toHaveLength(1);
});
