import { expect, it } from 'vitest';
import type { Candidate } from '../../src/balancing/strategy.ts';
import { LearningAllowance } from '../../src/client/learning-allowance.ts';

function candidate(): Candidate & { failing: boolean } {
  return {
    instance: { serviceName: 's', instanceId: 'i', host: 'h', port: 1 } as Candidate['instance'],
    weight: 1,
    slowStartFactor: 1,
    inFlight: 0,
    failing: false,
    latencyAt: () => 0,
  };
}

const paid = (allowance: LearningAllowance, of: Candidate, retries: number) =>
  Array.from({ length: retries }, () => allowance.withdraw(of)).filter(Boolean).length;

it('an allowance pays for five retries of calls that an instance failed, for each instance', () => {
  const allowance = new LearningAllowance();
  const one = candidate();
  expect(paid(allowance, one, 20)).toBe(5);
  expect(paid(allowance, candidate(), 20)).toBe(5);
  expect(paid(allowance, one, 20)).toBe(0);
});

it('an instance is alone in trouble if another has served a call that began later', () => {
  const allowance = new LearningAllowance();
  const [one, two] = [candidate(), candidate()];
  expect(allowance.isAlone(one, 0)).toBe(false);
  allowance.recordSuccess(one, 10);
  expect(allowance.isAlone(candidate(), 5)).toBe(true);
  expect(allowance.isAlone(candidate(), 15)).toBe(false);
  allowance.recordSuccess(two, 20);
  allowance.recordSuccess(two, 30);
  expect(allowance.isAlone(two, 5)).toBe(true);
  expect(allowance.isAlone(one, 30)).toBe(true);
});

it('an instance that has served the latest call itself is not alone in trouble', () => {
  const allowance = new LearningAllowance();
  const one = candidate();
  allowance.recordSuccess(one, 10);
  expect(allowance.isAlone(one, 5)).toBe(false);
  expect(allowance.isAlone(one, 8)).toBe(false);
});

it('an instance is alone in trouble if another has served a call since its timeout before', () => {
  const allowance = new LearningAllowance();
  const [one, two] = [candidate(), candidate()];
  expect(allowance.isAlone(one, 0)).toBe(false);
  allowance.recordTimeout(one, 300);
  allowance.recordTimeout(one, 0);
  allowance.recordSuccess(two, 250);
  expect(allowance.isAlone(one, 600)).toBe(false);
  allowance.recordSuccess(two, 350);
  expect(allowance.isAlone(one, 600)).toBe(true);
});

it('a timeout of long ago does not make an instance alone in trouble', () => {
  const allowance = new LearningAllowance();
  const [one, two] = [candidate(), candidate()];
  allowance.recordTimeout(one, 0);
  allowance.recordSuccess(two, 9_000);
  expect(allowance.isAlone(one, 9_900)).toBe(true);
  expect(allowance.isAlone(one, 10_000)).toBe(false);
});

it('no instance is alone in trouble while none responds', () => {
  const allowance = new LearningAllowance();
  const instances = Array.from({ length: 4 }, candidate);
  for (const instance of instances) allowance.recordSuccess(instance, 0);
  for (let at = 1; at <= 20_000; at += 500)
    for (const instance of instances) {
      expect(allowance.isAlone(instance, at)).toBe(false);
      allowance.recordTimeout(instance, at);
    }
});

it('an allowance pays again once an instance that was ejected has returned', () => {
  const allowance = new LearningAllowance();
  const one = candidate();
  paid(allowance, one, 4);
  one.failing = true;
  expect(paid(allowance, one, 10)).toBe(1);
  one.failing = false;
  expect(paid(allowance, one, 10)).toBe(5);
  expect(paid(allowance, one, 10)).toBe(0);
});
