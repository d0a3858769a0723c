import { boolean, type Check, hasMethods, matching, validateOptions } from '../internal/validate.ts';
import { checkSelector, type Selector } from './selector.ts';

export interface AcquireOptions {
  /** Calls with the same key go to the same instance where the strategy is `consistent-hash`. */
  hashKey?: string | undefined;
  /**
   * Ids of instances to avoid while there are others, because earlier attempts of the call went to
   * them. A call with any of them is a retry, which neither probes nor explores.
   */
  exclude?: ReadonlySet<string> | undefined;
  /**
   * Only instances with this metadata: `{ version: '2' }`. Default: the `select` of the balancer.
   */
  select?: Selector | undefined;
  /**
   * Whether the call can be made again on another instance, should this one fail. First attempts of
   * such calls probe ejected instances; other calls do so if no such call came for a while. Default
   * true.
   */
  repeatable?: boolean | undefined;
  /**
   * Only an instance that is not ejected, whose latest call did not fail, and that is not in
   * `exclude`. Default false.
   */
  onlyWell?: boolean | undefined;
  /**
   * The instance whose last call began longest ago, ejected or not, in place of the strategy's
   * choice. It is for calls that find out whether the service is well again, so that no instance
   * waits for ever. An instance with a probe under way comes last. Default false.
   */
  inTurn?: boolean | undefined;
}

export const NO_OPTIONS: AcquireOptions = {};

const CHECKS: Readonly<Record<keyof AcquireOptions, Check>> = {
  hashKey: matching(/^/, 'a string'),
  exclude: hasMethods('has'),
  select: checkSelector,
  repeatable: boolean,
  onlyWell: boolean,
  inTurn: boolean,
};

/**
 * Checks the options that a caller has written for `method`. Each pick needs this check, so that
 * plain options with no more than a hash key skip the table. The state of a client's call, which is
 * no plain object and always has `exclude`, has been checked before.
 *
 * @throws TypeError naming the option that is unknown or has a wrong value.
 */
export function checkAcquireOptions(method: string, options: AcquireOptions): void {
  if (options === NO_OPTIONS || needNoCheck(options)) return;
  validateOptions(`${method} of LoadBalancer`, options, CHECKS);
}

function needNoCheck(options: AcquireOptions): boolean {
  if (typeof options !== 'object' || options === null) return false;
  if (Object.getPrototypeOf(options) !== Object.prototype) return 'exclude' in options;
  for (const name in options) if (name !== 'hashKey') return false;
  const { hashKey } = options;
  return hashKey === undefined || typeof hashKey === 'string';
}
