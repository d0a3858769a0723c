import { describe, it } from 'vitest';
import { adapters, play, scenarios } from './scenarios.ts';

describe.each(adapters)('$name', (adapter) => {
  for (const scenario of scenarios) it(scenario.name, () => play(scenario, adapter));
});
