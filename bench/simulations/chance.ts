import type { World } from './harness.ts';

/** A draw from the exponential distribution. */
export function exponential(mean: number): number {
  return -mean * Math.log(1 - Math.random());
}

/** A draw from the normal distribution, by Box and Muller. */
export function normal(mean: number, deviation: number): number {
  const radius = Math.sqrt(-2 * Math.log(1 - Math.random()));
  return mean + deviation * radius * Math.cos(2 * Math.PI * Math.random());
}

/** Calls `arrive` at random moments, so many a second on average, for some milliseconds: a Poisson process. */
export function arrivals(
  { later }: World,
  perSecond: number,
  duration: number,
  arrive: () => void,
): Promise<void> {
  const end = performance.now() + duration;
  return new Promise((resolve) => {
    const next = () => {
      later(exponential(1000 / perSecond), () => {
        if (performance.now() >= end) return resolve();
        arrive();
        next();
      });
    };
    next();
  });
}
