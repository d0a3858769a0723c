import { isThenable } from '../internal/decision.ts';
import { shown } from '../internal/shown.ts';
import { anObject, isFunction } from '../internal/validate.ts';
import { createAttemptError } from './attempt-error.ts';
import { invalid } from './check-event.ts';
import type { DomainEvent } from './domain-event.ts';
import { checkEventType } from './event-pattern.ts';

/** Makes the data of the next version of those of one version. It may change what it is given. */
// biome-ignore lint/suspicious/noExplicitAny: the data of a former version has no type any more.
export type Upcaster = (data: any) => unknown;

/** The upcasters of each type, by the version that they take. */
export type UpcastOptions = Readonly<Record<string, Readonly<Record<number, Upcaster>>>>;

interface Chain {
  /** first is the oldest version that can be read. */
  readonly first: number;
  /** The upcaster of version `first + index`. */
  readonly steps: readonly Upcaster[];
}

const NO_STEPS: Chain = { first: 1, steps: [] };

/** Brings the data of events of former versions to the current one, step by step. */
export class Upcasters {
  readonly #chains = new Map<string, Chain>();

  /** @throws TypeError that names the option, if a chain has a gap or a step is no function */
  constructor(options: UpcastOptions, option: string) {
    anObject(options, option);
    for (const [type, steps] of Object.entries(options)) {
      const name = `${option}['${type}']`;
      checkEventType(type, `the key ${shown(type)} of ${option}`);
      this.#chains.set(type, readChain(steps, name));
    }
  }

  /** Gives the current version of a type: 1 without upcasters. */
  currentVersion(type: string): number {
    const { first, steps } = this.#chains.get(type) ?? NO_STEPS;
    return first + steps.length;
  }

  /**
   * Gives the data of an event in the current version; the event stays as it is.
   *
   * @throws InvalidEventError if the version is too old, or a step fails
   */
  upcast(event: DomainEvent): unknown {
    const { eventType, version, data } = event;
    const { first, steps } = this.#chains.get(eventType) ?? NO_STEPS;
    if (version < first) {
      throw invalid(event, `version ${version} is older than ${first}, the first that is read`);
    }
    let current = version === first + steps.length ? data : structuredClone(data);
    for (let step = version - first; step < steps.length; step++) {
      current = runStep(steps[step]!, current, event, `the upcast from version ${first + step}`);
    }
    return current;
  }
}

function runStep(step: Upcaster, data: unknown, event: DomainEvent, what: string): unknown {
  let result: unknown;
  try {
    result = step(data);
  } catch (cause) {
    throw invalid(event, `${what} failed: ${createAttemptError(cause, 1).message}`, cause);
  }
  if (isThenable(result)) {
    Promise.resolve(result).catch(() => {});
    throw invalid(event, `${what} must give the data at once, and gave a promise`);
  }
  if (result === undefined) throw invalid(event, `${what} gave no data`);
  return result;
}

function readChain(steps: unknown, option: string): Chain {
  anObject(steps, option);
  const versions = Object.keys(steps as object).map(Number);
  const [first, last] = [Math.min(...versions), Math.max(...versions)];
  if (versions.length === 0 || !versions.every((version) => Number.isInteger(version) && version >= 1)) {
    throw new TypeError(`${option} must have the versions that its functions take, from 1 on, as its keys`);
  }
  const chain = Array.from({ length: last - first + 1 }, (_, index) => {
    const version = first + index;
    const step = (steps as Record<number, unknown>)[version];
    if (step === undefined) throw new TypeError(`${option} has a gap: version ${version} is missing`);
    isFunction(step, `${option}[${version}]`);
    return step as Upcaster;
  });
  return { first, steps: chain };
}
