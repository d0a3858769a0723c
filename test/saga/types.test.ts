import * as v from 'valibot';
import { expect, expectTypeOf, it } from 'vitest';
import { z } from 'zod';
import { defineSaga, type SagaDefinition } from '../../src/saga/define-saga.ts';

interface Order {
  userId: string;
  total: number;
}

type ResultsOf<Saga extends SagaDefinition> = NonNullable<Saga['~types']>['results'];

it('each step sees the input, and the results of the steps before it', () => {
  const saga = defineSaga<Order>('order', { version: 1 })
    .step('price', { run: ({ input }) => input.total * 2 })
    .step('charge', {
      call: ({ input, results, sagaId }) => {
        expectTypeOf(input).toEqualTypeOf<Order>();
        expectTypeOf(results).toEqualTypeOf<{ readonly price: number }>();
        return { service: 'payment-service', method: 'POST', path: '/charges', body: { sagaId } };
      },
      result: z.object({ chargeId: z.string() }),
      compensate: {
        run: ({ result, results }) => {
          expectTypeOf(result).toEqualTypeOf<{ chargeId: string } | undefined>();
          expectTypeOf(results.price).toEqualTypeOf<number>();
        },
      },
    })
    .pivot()
    .step('pack', {
      run: async ({ results }, { signal }) => ({ of: results.charge.chargeId, signal: !signal.aborted }),
    });
  expectTypeOf(saga).toEqualTypeOf<
    SagaDefinition<
      Order,
      {
        readonly price: number;
        readonly charge: { chargeId: string };
        readonly pack: { of: string; signal: boolean };
      }
    >
  >();
  expect(saga.plan.stages.map(([step]) => step!.name)).toEqual(['price', 'charge', 'pack']);
});

it('a compensation sees the result that its own step has given', () => {
  defineSaga<Order>('order', { version: 1 })
    .step('reserve', {
      run: async ({ input }) => ({ items: input.total }),
      compensate: {
        run: ({ result }) => {
          expectTypeOf(result).toEqualTypeOf<{ items: number } | undefined>();
        },
      },
    })
    .step('ship', {
      call: () => ({ service: 's', path: '/' }),
      compensate: {
        call: ({ result, input }) => {
          expectTypeOf(result).toEqualTypeOf<unknown>();
          return { service: 's', path: `/${input.userId}` };
        },
      },
    });
});

it('the results of parallel steps are known by their names', () => {
  const saga = defineSaga<Order>('order', { version: 1 })
    .parallel({
      a: { run: () => 1 },
      b: { run: async ({ input }) => input.userId },
      c: { call: () => ({ service: 's', path: '/' }), result: v.object({ n: v.number() }) },
    })
    .step('sum', { run: ({ results }) => [results.a, results.b, results.c.n] as const });
  expectTypeOf<ResultsOf<typeof saga>['sum']>().toEqualTypeOf<readonly [number, string, number]>();
  expect(saga.plan.stages[0]!.map(({ name }) => name)).toEqual(['a', 'b', 'c']);
  expect(saga.plan.steps.map(({ name }) => name)).toEqual(['a', 'b', 'c', 'sum']);
});

it('an event that is waited for gives what its schema says', () => {
  const saga = defineSaga<Order>('order', { version: 1 })
    .waitFor('parcel', {
      event: 'order.shipped',
      correlate: (event, { input }) => {
        expectTypeOf(input).toEqualTypeOf<Order>();
        return event.aggregateId === input.userId;
      },
      result: z.object({ parcel: z.string() }),
    })
    .step('review', {
      run: (_step, { token }) => token,
      completedBy: { event: 'review.done', sagaId: (event) => event.aggregateId },
    });
  expectTypeOf<ResultsOf<typeof saga>['parcel']>().toEqualTypeOf<{ parcel: string }>();
});

it('what cannot be meant does not compile, and is rejected when it is defined', () => {
  const saga = defineSaga<Order>('order', { version: 1 }).step('a', { run: () => 1 });
  // @ts-expect-error: there is a step of this name
  expect(() => saga.step('a', { run: () => 1 })).toThrow("the saga 'order' has a step 'a' already");
  // @ts-expect-error: a step is one of call, run, publish
  expect(() => saga.step('b', { run: () => 1, call: () => ({ service: 's', path: '/' }) })).toThrow(
    "the saga 'order', step 'b' must have exactly one of call, run and publish; got call and run",
  );
  // @ts-expect-error: a step is one of call, run, publish
  expect(() => saga.step('b', {})).toThrow(TypeError);
  // @ts-expect-error: the retries are the step's
  saga.step('b', { call: () => ({ service: 's', path: '/', retries: 2 }) });
});
