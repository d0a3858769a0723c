/**
 * How much more than its share of the load a level is built to carry: with fewer than 1 / 1.4 = 71 % of its
 * instances available it begins to hand over.
 */
const OVERPROVISIONING = 1.4;

export interface LevelLoad {
  /** The share of the calls that go to the level. All of them add up to 1. */
  readonly share: number;
  /** Whether its ejected instances get calls too, since neither it nor the others can carry the load. */
  readonly panicking: boolean;
}

/**
 * How calls are shared among levels of priority. The first takes all of them while it is well enough; what it
 * cannot carry goes to the next, and so on. If all together cannot carry the load, each gets what it is worth
 * among them, and those with more ejected than `panicThreshold` panic.
 *
 * Source: Envoy, 'Priority levels' and 'Panic threshold', without the rounding to whole percents.
 *
 * @param available what share of the instances of each level is available, the first level first.
 */
export function levelLoads(available: readonly number[], panicThreshold: number): LevelLoad[] {
  const healths = available.map((share) => Math.min(1, share * OVERPROVISIONING));
  const total = healths.reduce((sum, health) => sum + health, 0);
  const scale = total > 0 && total < 1 ? 1 / total : 1;
  let left = 1;
  return healths.map((health, level) => {
    // With nothing available anywhere all goes to the first level.
    const share = total === 0 ? (level === 0 ? 1 : 0) : Math.min(left, health * scale);
    left -= share;
    return { share, panicking: total < 1 && 1 - available[level]! > panicThreshold };
  });
}
