import fc from 'fast-check';
import { beforeEach, describe, expect, it, vi } from 'vitest';
import type { Candidate } from '../../src/balancing/strategy.ts';
import { type EvidenceRules, ServiceEvidence } from '../../src/client/service-evidence.ts';
import { fakeTime } from '../policies/helpers.ts';

const rules: EvidenceRules = { failureRatio: 0.6, minimumCalls: 10, certain: false };

interface FakeCandidate extends Candidate {
  failing: boolean;
  inFlight: number;
}

function candidatesOf(size: number): FakeCandidate[] {
  return Array.from({ length: size }, () => ({ failing: false, inFlight: 0 }) as FakeCandidate);
}

/** The numbers of results of each kind on an instance. */
interface Results {
  readonly failures?: number;
  readonly successes?: number;
  readonly slow?: number;
}

function evidenceOf(
  candidates: readonly FakeCandidate[],
  results: readonly Results[],
  own = rules,
): ServiceEvidence {
  const evidence = new ServiceEvidence(own);
  results.forEach(({ failures = 0, successes = 0, slow = 0 }, index) => {
    const record = (failed: boolean, late: boolean) =>
      evidence.record(candidates[index]!, candidates, failed, late);
    for (let count = 0; count < successes; count++) record(false, false);
    for (let count = 0; count < slow; count++) record(false, true);
    for (let count = 0; count < failures; count++) record(true, false);
  });
  return evidence;
}

function isDown(results: readonly Results[], { size = results.length, own = rules } = {}): boolean {
  return evidenceOf(candidatesOf(size), results, own).isDown();
}

/** Whether two instances that failed all calls are down after a silence, with a call under way on one. */
function isDownAfter(silence: number, own: EvidenceRules): boolean {
  const candidates = candidatesOf(2);
  const evidence = evidenceOf(candidates, [{ failures: 10 }, { failures: 10 }], own);
  vi.advanceTimersByTime(silence);
  candidates[0]!.inFlight = 1;
  return evidence.isDown();
}

beforeEach(fakeTime);

describe('a service', () => {
  it('a service of one instance is down whenever the rule of the breaker is reached', () => {
    expect(isDown([{ failures: 1, successes: 9 }])).toBe(true);
  });

  it('a service is down if each of its instances fails as large a share of its calls as opens the breaker', () => {
    expect(
      isDown([
        { failures: 6, successes: 4 },
        { failures: 7, successes: 3 },
      ]),
    ).toBe(true);
  });

  it('a service is down if its instances do so on average, and none is clearly well', () => {
    expect(
      isDown([
        { failures: 5, successes: 5 },
        { failures: 8, successes: 2 },
      ]),
    ).toBe(true);
    expect(
      isDown([
        { failures: 5, successes: 5 },
        { failures: 6, successes: 4 },
      ]),
    ).toBe(false);
  });

  it('a service is not down while an instance fails less than half of that share, however bad the others are', () => {
    const bad = Array.from({ length: 9 }, () => ({ failures: 100 }));
    expect(isDown([...bad, { failures: 29, successes: 71 }])).toBe(false);
    expect(isDown([...bad, { failures: 31, successes: 69 }])).toBe(true);
  });

  it.each([2, 5, 10])(
    'a service of %i instances is not down while one that is little known may be well',
    (size) => {
      const bad = Array.from({ length: size - 1 }, () => ({ failures: 100 }));
      expect(isDown([...bad, {}])).toBe(false);
      expect(isDown([...bad, { failures: 1 }])).toBe(false);
      expect(isDown([...bad, { failures: 2 }])).toBe(true);
      const candidates = candidatesOf(size);
      const evidence = evidenceOf(candidates, [...bad, { failures: 2 }]);
      candidates[size - 1]!.inFlight = 1;
      expect(evidence.isDown()).toBe(false);
    },
  );

  it('a service is not down by what is known of less than half of its instances', () => {
    const little = Array.from({ length: 5 }, () => ({ failures: 2 }));
    expect(isDown([...little, { failures: 50 }, { failures: 50 }, { failures: 50 }])).toBe(false);
    expect(isDown([...little.slice(2), { failures: 50 }, { failures: 50 }, { failures: 50 }])).toBe(true);
  });

  it('a service is not down while nothing is known of an instance that has just joined', () => {
    const [one, other, joined] = candidatesOf(3) as [FakeCandidate, FakeCandidate, FakeCandidate];
    const evidence = evidenceOf([one, other], [{ failures: 50 }, { failures: 50 }]);
    expect(evidence.isDown()).toBe(true);
    evidence.record(one, [one, other, joined], true, false);
    expect(evidence.isDown()).toBe(false);
  });

  it('a service counts an instance that is ejected for failures in a row as failing all of its calls', () => {
    const candidates = candidatesOf(2);
    const evidence = evidenceOf(candidates, [{ failures: 10 }, { successes: 50 }]);
    expect(evidence.isDown()).toBe(false);
    candidates[1]!.failing = true;
    expect(evidence.isDown()).toBe(true);
  });

  it('a service is not judged by what an instance did before it was ejected and has returned', () => {
    const candidates = candidatesOf(2);
    const evidence = evidenceOf(candidates, [{ failures: 50 }, { failures: 50 }]);
    const returning = candidates[0]!;
    returning.failing = true;
    evidence.record(returning, candidates, false, false);
    expect(evidence.isDown()).toBe(true);
    returning.failing = false;
    evidence.record(returning, candidates, false, false);
    expect(evidence.isDown()).toBe(false);
  });

  it('a service is judged by the results of the window alone', () => {
    const candidates = candidatesOf(2);
    const evidence = evidenceOf(candidates, [{ successes: 50 }, { successes: 50 }]);
    vi.advanceTimersByTime(11_000);
    for (const candidate of candidates)
      for (let count = 0; count < 5; count++) evidence.record(candidate, candidates, true, false);
    expect(evidence.isDown()).toBe(true);
  });

  it.each([1, 2, 10])(
    'a service of %i instances is judged by as many results as a window of calls can hold',
    (size) => {
      const own: EvidenceRules = { ...rules, window: { calls: 2 }, minimumCalls: 20 };
      const candidates = candidatesOf(size);
      const evidence = evidenceOf(
        candidates,
        candidates.map(() => ({ failures: 2 })),
        own,
      );
      for (const candidate of candidates) candidate.inFlight = 1;
      expect(evidence.isDown()).toBe(true);
      expect(evidence.allFailed).toBe(true);
    },
  );

  it('a service is not down while an instance is clearly well and the others are ejected for failures in a row', () => {
    const own: EvidenceRules = { ...rules, minimumCalls: 3 };
    const candidates = candidatesOf(2);
    const evidence = evidenceOf(candidates, [{ successes: 3, failures: 1 }], own);
    candidates[1]!.failing = true;
    expect(evidence.isDown()).toBe(false);
  });

  it('a service is not down while a call is under way on an instance whose results are of long ago', () => {
    const following: EvidenceRules = { failureRatio: 0.6, certain: false };
    expect(isDownAfter(15_000, following)).toBe(false);
    expect(isDownAfter(5_000, following)).toBe(true);
  });

  it.each<EvidenceRules['window']>([60_000, { calls: 20 }])(
    'a service is judged by all results of the window %o that a user gives, though a call is under way',
    (window) => {
      expect(isDownAfter(15_000, { failureRatio: 0.6, window, certain: false })).toBe(true);
    },
  );

  it('a service is judged anew once the breaker has closed', () => {
    const candidates = candidatesOf(2);
    const evidence = evidenceOf(candidates, [{ failures: 50 }, { failures: 50 }]);
    evidence.clear();
    evidence.record(candidates[0]!, candidates, true, false);
    expect(evidence.isDown()).toBe(false);
    expect(evidence.allFailed).toBe(false);
  });

  it('a service is down for being slow as for failing, where slow calls open the breaker', () => {
    const own: EvidenceRules = { slowCallRatio: 0.5, minimumCalls: 10, certain: false };
    expect(
      isDown(
        [
          { slow: 6, successes: 4 },
          { slow: 6, successes: 4 },
        ],
        { own },
      ),
    ).toBe(true);
    expect(isDown([{ slow: 10 }, { successes: 8, slow: 2 }], { own })).toBe(false);
  });

  it('a service of more than ten instances is known by ten of them', () => {
    const bad = (count: number) => Array.from({ length: count }, () => ({ failures: 3 }));
    expect(isDown(bad(9), { size: 100 })).toBe(false);
    expect(isDown(bad(10), { size: 100 })).toBe(true);
  });

  it('a service of more than ten instances that fail all calls is not down while another succeeds, or has a call', () => {
    const candidates = candidatesOf(100);
    const bad = Array.from({ length: 10 }, () => ({ failures: 3 }));
    expect(evidenceOf(candidates, [...bad, { successes: 1 }]).isDown()).toBe(false);
    expect(evidenceOf(candidates, [...bad, { failures: 1 }]).isDown()).toBe(true);
    candidates[50]!.inFlight = 1;
    expect(evidenceOf(candidates, [...bad, { failures: 1 }]).isDown()).toBe(false);
  });

  it('a service of more than ten instances that fail most calls is down though as many succeed as chance lets', () => {
    const bad = Array.from({ length: 10 }, () => ({ successes: 1, failures: 3 }));
    const little = (successes: number, failures: number) => [
      ...Array.from({ length: successes }, () => ({ successes: 1 })),
      ...Array.from({ length: failures }, () => ({ failures: 1 })),
    ];
    expect(isDown([...bad, ...little(5, 5)])).toBe(true);
    expect(isDown([...bad, ...little(6, 4)])).toBe(false);
  });

  it('a service is not cut off for what may be chance, unless the user has set the share', () => {
    const candidates = candidatesOf(1);
    const half = [{ successes: 8, failures: 12 }];
    expect(evidenceOf(candidates, half).isDown()).toBe(true);
    expect(evidenceOf(candidates, half, { ...rules, certain: true }).isDown()).toBe(false);
    expect(
      evidenceOf(candidates, [{ successes: 5, failures: 15 }], { ...rules, certain: true }).isDown(),
    ).toBe(true);
  });

  it('a service is down though a few calls in a row succeed on an instance, as they do by chance on one of many', () => {
    const alike = Array.from({ length: 9 }, () => ({ successes: 3, failures: 7 }));
    expect(isDown([...alike, { successes: 3 }])).toBe(true);
    expect(isDown([...alike, { successes: 6 }])).toBe(false);
  });

  it('a service is never down while an instance has had many successes and no failure, whatever came before', () => {
    const result = fc.record({
      index: fc.nat(11),
      failed: fc.boolean(),
      wait: fc.constantFrom(0, 0, 0, 700),
    });
    const course = fc.array(result, { maxLength: 300, size: 'max' });
    fc.assert(
      fc.property(fc.integer({ min: 2, max: 12 }), course, (size, results) => {
        const candidates = candidatesOf(size);
        const evidence = new ServiceEvidence(rules);
        const seen: { at: number; index: number; failed: boolean }[] = [];
        for (const { index, failed, wait } of results) {
          vi.advanceTimersByTime(wait);
          evidence.record(candidates[index % size]!, candidates, failed, false);
          seen.push({ at: performance.now(), index: index % size, failed });
          if (!evidence.isDown()) continue;
          for (let of = 0; of < size; of++) {
            // A window is kept in slices of a second: a result younger than nine seconds is in it.
            const own = seen.filter((it) => it.index === of && it.at > performance.now() - 10_000);
            const certain = own.filter(({ at }) => at > performance.now() - 9_000);
            expect(certain.length >= 7 && own.every((it) => !it.failed)).toBe(false);
          }
        }
      }),
      { numRuns: 50 },
    );
  });
});

describe('attempts in a row', () => {
  it('attempts in a row have all failed once as many failed as the breaker needs results, on any instances', () => {
    const candidates = candidatesOf(3);
    const evidence = new ServiceEvidence(rules);
    for (let count = 0; count < 9; count++) evidence.record(candidates[count % 3]!, candidates, true, false);
    expect(evidence.allFailed).toBe(false);
    evidence.record(candidates[0]!, candidates, true, false);
    expect(evidence.allFailed).toBe(true);
    evidence.record(candidates[1]!, candidates, false, false);
    expect(evidence.allFailed).toBe(false);
  });

  it('attempts in a row speak of the service only if no instance succeeded last, and none is unknown', () => {
    const [one, other] = candidatesOf(2) as [FakeCandidate, FakeCandidate];
    const candidates = [one, other];
    const evidence = new ServiceEvidence(rules);
    for (let count = 0; count < 20; count++) evidence.record(one, candidates, true, false);
    expect(evidence.allFailedLast()).toBe(false);
    evidence.record(other, candidates, false, false);
    evidence.record(one, candidates, true, false);
    expect(evidence.allFailedLast()).toBe(false);
    evidence.record(other, candidates, true, false);
    expect(evidence.allFailedLast()).toBe(true);
  });
});

describe('an instance', () => {
  it('an instance is bad alone while it fails as much as would open the breaker and another is clearly well', () => {
    const candidates = candidatesOf(3);
    const evidence = evidenceOf(candidates, [
      { failures: 8, successes: 2 },
      { successes: 10 },
      { failures: 4, successes: 6 },
    ]);
    expect(candidates.map((candidate) => evidence.isBadAlone(candidate))).toEqual([true, false, false]);
  });

  it('an instance is not bad alone if no other is known to be well', () => {
    const candidates = candidatesOf(2);
    const evidence = evidenceOf(candidates, [{ failures: 10 }, { failures: 5, successes: 5 }]);
    expect(evidence.isBadAlone(candidates[0]!)).toBe(false);
  });
});
