import { isFunction } from '../../internal/validate.ts';
import { type BalancingStrategy, drawIndex, type Picker } from '../strategy.ts';

/**
 * Makes a strategy that goes by latency give a call now and then to a candidate that gets none, in
 * order to learn whether it is as slow as it once was. Each pick checks one candidate, in turn.
 * Prequal ('Load is not what you should balance', NSDI 2024) also checks each instance again,
 * rather than leave it to an estimate that fades; it sends probes of its own, and here calls are
 * the probes.
 *
 * @example
 * const strategy = exploring(twoChoices((candidate, now) => candidate.latencyAt(now)));
 * @throws TypeError if the strategy is no function.
 */
export function exploring(strategy: BalancingStrategy): BalancingStrategy {
  isFunction(strategy, 'the strategy of exploring()');
  return (candidates, context) => {
    const picker = strategy(candidates, context);
    // The balancer rejects a value that is no picker.
    if (candidates.length === 1 || typeof picker !== 'function') return picker;
    let next = drawIndex(candidates.length, context.random);
    const pick: Picker = (request) => {
      const candidate = candidates[next]!;
      next = next + 1 === candidates.length ? 0 : next + 1;
      return request.explores(candidate) ? candidate : picker(request);
    };
    return picker.loadChanged === undefined ? pick : Object.assign(pick, { loadChanged: picker.loadChanged });
  };
}
