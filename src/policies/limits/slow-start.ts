import type { ConcurrencyLimit, LimitSample } from '../concurrency-limit.ts';

type Phase =
  /** No queue is known: the limit follows demand. */
  | { readonly name: 'growing'; suspicions: number }
  /** Calls that were let in before the limit fell still drain. */
  | { readonly name: 'settling'; windows: number }
  /** The algorithm finds the limit. */
  | { readonly name: 'judging'; unused: number; steady: number; readonly seen: Throughput }
  /** The limit is raised, to see whether goodput rises with it. */
  | {
      readonly name: 'looking';
      readonly limit: number;
      readonly before: Throughput;
      windows: number;
      readonly seen: Throughput;
    };

interface Throughput {
  calls: number;
  elapsed: number;
}

/**
 * Latency this many times that at the optimum, at power as many times lower, looks like a queue.
 */
const EXCESS = 1.5;
/**
 * Windows in a row that must look like a stable queue; a window with a growing queue counts five
 * times.
 */
const CERTAIN = 10;
/** Share of dropped calls beyond which they are no mere loss of a few. */
const LOSS = 0.1;
/** Windows in a row that set an unused limit free, or let one in use be raised. */
const STREAK = 10;
const RAISE = 1.25;
/** Windows for which the limit stays raised; the first does not count. */
const LOOKS = 4;

/**
 * Lets a limit look upward until goodput stops rising, before an algorithm judges by latency or
 * loss. While it grows, the limit is one and a half times the calls that demand would keep in
 * flight at the present latency (Little's law), so that it need not double once a round trip, which
 * takes eight of them from 20 to 4,800.
 *
 * It hands over to the algorithm when two windows in a row look overloaded: a tenth of the calls
 * was dropped, or calls pile up at more than twice the latency of the first calls, and power,
 * goodput² / latency, is no more than two thirds of the best that was seen. Where calls do not pile
 * up it takes ten windows. Power still rises where goodput rises by more than a third of the rise
 * of the calls in flight, as in a service whose latency is linear in them, and falls in any queue.
 * The limit is then the number of calls in flight at that optimum, and a fifth more, and the
 * algorithm uses the latency there as that without a queue.
 *
 * From then on it raises a limit in use by a quarter now and then, and grows again if goodput rises
 * with it, as it grows again when the limit was not used for a while.
 *
 * Sources: slow start, RFC 5681; BBR's startup and its probes for bandwidth (Cardwell et al., 'BBR:
 * Congestion-Based Congestion Control'); Uber, 'Cinnamon Auto-Tuner: Adaptive Concurrency in the
 * Wild', which reads the covariance of calls in flight and throughput; the power of a queue is
 * Kleinrock's, 'Power and Deterministic Rules of Thumb', whose exponent is 1 where throughput
 * matters no more than latency.
 */
export class SlowStart implements ConcurrencyLimit {
  readonly #algorithm: ConcurrencyLimit;
  #phase: Phase = { name: 'growing', suspicions: 0 };
  /** #baseRtt is the latency while next to nothing was in flight. */
  #baseRtt: number | undefined;
  /** #optimum is where power was greatest. */
  #optimum: { goodput: number; rtt: number } | undefined;

  constructor(algorithm: ConcurrencyLimit) {
    this.#algorithm = algorithm;
  }

  get growing(): boolean {
    return this.#phase.name === 'growing';
  }

  next(limit: number, sample: LimitSample): number {
    const phase = this.#phase;
    switch (phase.name) {
      case 'growing':
        return this.#grow(phase, limit, sample);
      case 'settling':
        if (--phase.windows === 0) this.#phase = judging();
        return limit;
      case 'judging':
        return this.#judge(phase, limit, sample);
      case 'looking':
        return this.#look(phase, limit, sample);
    }
  }

  #grow(phase: Phase & { name: 'growing' }, limit: number, sample: LimitSample): number {
    if (this.#baseRtt === undefined && sample.firstRtt !== undefined) {
      this.#baseRtt = atLeastOne(sample.firstRtt);
      this.#optimum = { goodput: goodputOf(sample), rtt: this.#baseRtt };
    }
    const suspicion = this.#suspicionOf(limit, sample);
    if (suspicion > 0) {
      phase.suspicions += suspicion;
      return phase.suspicions < CERTAIN ? limit : this.#handOver(limit, sample);
    }
    phase.suspicions = 0;
    const { rtt, demand } = sample;
    if (rtt === undefined) return limit;
    this.#learn(goodputOf(sample), atLeastOne(rtt));
    const wanted = 1.5 * demand * rtt;
    // Chance moves demand, so that the limit would change with every window.
    return wanted > 1.2 * limit ? wanted : limit;
  }

  #handOver(limit: number, sample: LimitSample): number {
    this.#phase = { name: 'settling', windows: 2 };
    if (this.#optimum === undefined) return limit / 2;
    const { goodput, rtt } = this.#optimum;
    this.#algorithm.baseline?.(rtt);
    return Math.min(limit, 1.2 * Math.max(goodput, goodputOf(sample)) * rtt);
  }

  #judge(phase: Phase & { name: 'judging' }, limit: number, sample: LimitSample): number {
    const next = this.#algorithm.next(limit, sample);
    const { rtt = Infinity, dropped } = sample;
    const isUsed = sample.inFlight >= limit / 2;
    phase.unused = isUsed || dropped > 0 ? 0 : phase.unused + 1;
    if (phase.unused === STREAK) {
      this.#growFrom(rtt);
      return next;
    }
    // Latency far beyond the optimum is a queue already, and a limit that moves is no measure.
    const isSteady = dropped === 0 && Math.abs(next - limit) < 0.15 * limit;
    if (!isUsed || !isSteady || rtt > 2 * (this.#optimum?.rtt ?? Infinity)) {
      this.#phase = judging(phase.unused);
      return next;
    }
    add(phase.seen, sample);
    if (++phase.steady < STREAK) return next;
    this.#phase = {
      name: 'looking',
      limit: next,
      before: phase.seen,
      windows: 0,
      seen: { calls: 0, elapsed: 0 },
    };
    return RAISE * next;
  }

  #look(phase: Phase & { name: 'looking' }, limit: number, sample: LimitSample): number {
    const { rtt, dropped } = sample;
    if (rtt === undefined || dropped > 0) {
      this.#phase = judging();
      return phase.limit;
    }
    if (++phase.windows === 1) return limit;
    add(phase.seen, sample);
    if (phase.windows < LOOKS) return limit;
    if (hasRisen(phase.before, phase.seen)) {
      this.#growFrom(rtt, { goodput: phase.seen.calls / phase.seen.elapsed, rtt: atLeastOne(rtt) });
      return limit;
    }
    this.#phase = judging();
    return phase.limit;
  }

  #growFrom(rtt: number, optimum?: { goodput: number; rtt: number }): void {
    this.#phase = { name: 'growing', suspicions: 0 };
    this.#baseRtt = atLeastOne(rtt);
    this.#optimum = optimum;
  }

  /** Tells how much a window looks like overload, as a share of CERTAIN. */
  #suspicionOf(limit: number, sample: LimitSample): number {
    const { rtt, inFlight, calls, dropped, demand } = sample;
    if (dropped > LOSS * calls) return CERTAIN / 2;
    if (this.#optimum === undefined || this.#baseRtt === undefined || rtt === undefined) return 0;
    const optimum = this.#optimum;
    const goodput = goodputOf(sample);
    const isQueue =
      inFlight >= limit / 2 &&
      inFlight > EXCESS * optimum.goodput * optimum.rtt &&
      rtt > Math.max(2 * this.#baseRtt, EXCESS * optimum.rtt) &&
      EXCESS * power(goodput, rtt) < power(optimum.goodput, optimum.rtt);
    if (!isQueue) return 0;
    const isPilingUp = inFlight >= Math.floor(limit) || demand > 1.1 * goodput;
    return isPilingUp ? CERTAIN / 2 : 1;
  }

  #learn(goodput: number, rtt: number): void {
    const optimum = this.#optimum;
    if (optimum === undefined || power(goodput, rtt) > power(optimum.goodput, optimum.rtt)) {
      this.#optimum = { goodput, rtt };
    }
  }
}

function judging(unused = 0): Phase {
  return { name: 'judging', unused, steady: 0, seen: { calls: 0, elapsed: 0 } };
}

function goodputOf({ calls, dropped, elapsed }: LimitSample): number {
  return (calls - dropped) / elapsed;
}

function power(goodput: number, rtt: number): number {
  return goodput ** 2 / rtt;
}

/** Differences below a millisecond mean nothing. */
function atLeastOne(rtt: number): number {
  return Math.max(1, rtt);
}

function add(throughput: Throughput, { calls, elapsed }: LimitSample): void {
  throughput.calls += calls;
  throughput.elapsed += elapsed;
}

/** Whether goodput is higher by a tenth, and by more than chance makes it. */
function hasRisen(before: Throughput, after: Throughput): boolean {
  const goodput = before.calls / before.elapsed;
  const gain = after.calls / after.elapsed - goodput;
  const deviation = Math.hypot(
    Math.sqrt(before.calls) / before.elapsed,
    Math.sqrt(after.calls) / after.elapsed,
  );
  return gain > Math.max(0.1 * goodput, 2 * deviation);
}
