import { describe, it } from 'vitest';
import { adapters, play, scenarios } from './scenarios.ts';

describe.each(adapters)('$name', (adapter) => {
  for (const scenario of scenarios) {
    const why = adapter.fails?.[scenario.name];
    if (why === undefined) it(scenario.name, () => play(scenario, adapter));
    else it.fails(`not: ${scenario.name}, since ${why}`, () => play(scenario, adapter));
  }
});
