import { isFunction } from '../../internal/validate.ts';
import { type BalancingStrategy, type Picker, randomIndex } from '../strategy.ts';

/**
 * A strategy that goes by latency, and besides gives a call now and then to a candidate that gets none: to learn
 * whether it is as slow as it once was. Each pick looks at one candidate, in turn. That each instance is looked at
 * again, rather than left to an estimate that fades, is what Prequal does with probes of its own ('Load is not what you
 * should balance', NSDI 2024); here calls are the probes.
 *
 * @example
 * const strategy = exploring(twoChoices((candidate, now) => candidate.latencyAt(now)));
 * @throws TypeError if it is no function.
 */
export function exploring(strategy: BalancingStrategy): BalancingStrategy {
  isFunction(strategy, 'the strategy of exploring()');
  return (candidates, context) => {
    const picker = strategy(candidates, context);
    // What is no picker is the balancer's to reject.
    if (candidates.length === 1 || typeof picker !== 'function') return picker;
    let next = randomIndex(candidates.length, context.random);
    const pick: Picker = (request) => {
      const candidate = candidates[next]!;
      next = next + 1 === candidates.length ? 0 : next + 1;
      return request.explores(candidate) ? candidate : picker(request);
    };
    return picker.loadChanged === undefined ? pick : Object.assign(pick, { loadChanged: picker.loadChanged });
  };
}
