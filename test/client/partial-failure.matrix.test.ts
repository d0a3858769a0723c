import { describe, expect, it } from 'vitest';
import { strategies } from '../balancing/helpers.ts';
import { KINDS, METHODS, play, SCENARIOS_OF, SIZES, shown, violations } from './partial-failure.ts';

/** The trial partial-failure-matrix plays all strategies with each kind and method; here it is one of six. */
const STEP = process.env.WHOLE_MATRIX === 'yes' ? 1 : 6;

describe.each(KINDS)('some of the instances are bad: %s', (kind) => {
  describe.each(METHODS)('%s', (method) => {
    const first = KINDS.indexOf(kind) + METHODS.indexOf(method);
    it.each(strategies.filter((_, index) => (first + index) % STEP === 0))(
      'calls by %s reach the healthy instances, whatever the bad instances do',
      async (strategy) => {
        const report: string[] = [];
        for (const scenario of SCENARIOS_OF[method]) {
          for (const [bad, of] of SIZES) {
            const course = await play({ bad, of, kind, strategy, method, scenario });
            const found = violations(course, kind, method);
            if (found.length > 0) report.push(`${scenario}, ${bad} of ${of}:${shown(found)}`);
          }
        }
        expect(report.join('\n'), `${kind} × ${method} × ${strategy}`).toBe('');
      },
    );
  });
});
