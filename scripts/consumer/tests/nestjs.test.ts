import 'reflect-metadata';
import { afterEach, beforeEach, expect, jest, test } from '@jest/globals';
import { Injectable } from '@nestjs/common';
import { Test } from '@nestjs/testing';
import { CircuitBreaker, CircuitOpenError } from 'holdfast';

@Injectable()
class PriceService {
  readonly #breaker: CircuitBreaker;

  constructor(breaker: CircuitBreaker) {
    this.#breaker = breaker;
  }

  priceOf(read: () => Promise<number>): Promise<number> {
    return this.#breaker.execute(read);
  }
}

beforeEach(() => void jest.useFakeTimers());
afterEach(() => void jest.useRealTimers());

test('a breaker that NestJS injects opens, and closes when it is time for a probe', async () => {
  const useFactory = () => new CircuitBreaker({ failureThreshold: 2, resetTimeout: 10_000 });
  const module = await Test.createTestingModule({
    providers: [PriceService, { provide: CircuitBreaker, useFactory }],
  }).compile();
  const prices = module.get(PriceService);
  for (let call = 0; call < 2; call++) {
    await expect(prices.priceOf(() => Promise.reject(new Error('down')))).rejects.toThrow('down');
  }
  expect(module.get(CircuitBreaker).state).toBe('open');
  await expect(prices.priceOf(async () => 1)).rejects.toBeInstanceOf(CircuitOpenError);
  await jest.advanceTimersByTimeAsync(10_000);
  expect(await prices.priceOf(async () => 5)).toBe(5);
  await module.close();
});
