import type { BalancingStrategy, Candidate, Picker } from '../../../src/balancing/strategy.ts';
import { instance } from '../helpers.ts';

/** A candidate whose weight and load a test changes as it likes. */
export interface Pawn extends Candidate {
  readonly index: number;
  weight: number;
  inFlight: number;
}

export interface PickOptions {
  hashKey?: string;
  now?: number;
  accepts?: (index: number) => boolean;
}

export interface Board {
  readonly pawns: readonly Pawn[];
  readonly picker: Picker;
  /** The index of the one that is picked; -1 for none. */
  pick(options?: PickOptions): number;
  /** A pick on which a call begins. */
  begin(options?: PickOptions): number;
  end(index: number): void;
  picks(count: number, options?: PickOptions): number[];
  /** How often a candidate was looked at in any way since the last time of asking. */
  looks(): number;
}

/** A strategy with candidates of the given weights and nothing around it. */
export function board(
  strategy: BalancingStrategy,
  weights: readonly number[],
  random: () => number = () => Math.random(),
): Board {
  let looks = 0;
  const pawns = weights.map((weight, index): Pawn => {
    const described = instance(`i${index}`, { weight });
    let current = weight;
    let inFlight = 0;
    return {
      index,
      get instance() {
        looks++;
        return described;
      },
      get weight() {
        looks++;
        return current;
      },
      set weight(value) {
        current = value;
      },
      get slowStartFactor() {
        looks++;
        return current === weight ? 1 : current / weight;
      },
      get inFlight() {
        looks++;
        return inFlight;
      },
      set inFlight(value) {
        inFlight = value;
      },
      failing: false,
      latencyAt: () => {
        looks++;
        return 0;
      },
    };
  });
  const picker = strategy(pawns, { random });

  const pick = ({ hashKey, now = performance.now(), accepts = () => true }: PickOptions = {}): number => {
    const picked = picker({
      hashKey,
      now,
      accepts: (candidate) => {
        looks++;
        return accepts((candidate as Pawn).index);
      },
      explores: () => false,
    });
    return picked === undefined ? -1 : (picked as Pawn).index;
  };
  const change = (index: number, by: number) => {
    pawns[index]!.inFlight += by;
    picker.loadChanged?.(pawns[index]!);
  };
  return {
    pawns,
    picker,
    pick,
    begin: (options) => {
      const index = pick(options);
      if (index >= 0) change(index, 1);
      return index;
    },
    end: (index) => change(index, -1),
    picks: (count, options) => Array.from({ length: count }, () => pick(options)),
    looks: () => {
      const seen = looks;
      looks = 0;
      return seen;
    },
  };
}

/** How often each index occurs. */
export function counts(indexes: readonly number[], size: number): number[] {
  const found: number[] = new Array(size).fill(0);
  for (const index of indexes) found[index]!++;
  return found;
}

/**
 * How much a call looks at on average: `calls` of them, of which `underWay` are at any time, after as many more.
 * Keys differ from call to call.
 */
export function looksPerCall(
  strategy: BalancingStrategy,
  weights: readonly number[],
  { underWay = 50, ...options }: PickOptions & { underWay?: number } = {},
): number {
  const calls = 2_000;
  const { begin, end, looks } = board(strategy, weights);
  const open: number[] = [];
  const call = (number: number) => {
    open.push(begin({ hashKey: `key ${number}`, now: 0, ...options }));
    if (open.length > underWay) end(open.splice(Math.floor(Math.random() * open.length), 1)[0]!);
  };
  for (let number = 0; number < weights.length + underWay; number++) call(number);
  looks();
  for (let number = 0; number < calls; number++) call(number);
  return looks() / calls;
}
