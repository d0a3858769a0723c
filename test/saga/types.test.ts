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

it('the results of parallel steps are known whatever their functions take, and the steps go on', () => {
  const saga = defineSaga<Order>('order', { version: 1 })
    .step('price', { run: async ({ input }) => ({ total: input.total }) })
    .parallel({
      pack: {
        run: async ({ results, input }, { signal }) => {
          expectTypeOf(results).toEqualTypeOf<{ readonly price: { total: number } }>();
          expectTypeOf(input).toEqualTypeOf<Order>();
          return signal.aborted ? 0 : results.price.total;
        },
        compensate: {
          run: ({ result, results, sagaId }, { attempt }) => {
            expectTypeOf(result).toEqualTypeOf<unknown>();
            return [results.price.total, sagaId, attempt];
          },
        },
      },
      bill: {
        call: ({ results }) => ({ service: 's', path: `/${results.price.total}` }),
        result: z.object({ id: z.string() }),
        compensate: { call: ({ sagaId }) => ({ service: 's', path: `/${sagaId}` }) },
      },
      sign: {
        run: ({ input }, { token }) => [input, token],
        completedBy: { event: 'signed', correlate: ({ data }, { token }) => data === token },
      },
      tell: { publish: ({ input }) => ({ eventType: 't', aggregateId: input.userId, data: null }) },
    })
    .step('end', { run: ({ results }) => `${results.pack.toFixed()} ${results.bill.id}` });
  expectTypeOf<ResultsOf<typeof saga>>().toEqualTypeOf<{
    readonly price: { total: number };
    readonly pack: number;
    readonly bill: { id: string };
    readonly sign: unknown;
    readonly tell: unknown;
    readonly end: string;
  }>();
  expect(saga.plan.steps.map(({ name }) => name)).toEqual(['price', 'pack', 'bill', 'sign', 'tell', 'end']);
});

it('a step that an event completes gives the data of the event, not what its effect has given', () => {
  const saga = defineSaga<Order>('order', { version: 1 })
    .step('review', {
      run: async ({ input }, { token }) => ({ asked: input.userId + token }),
      completedBy: { event: 'review.done', correlate: ({ data }, { token }) => data === token },
      compensate: { run: ({ result }) => void expectTypeOf(result).toEqualTypeOf<unknown>() },
    })
    .step('approval', {
      run: () => 'asked',
      completedBy: { event: 'approved', sagaId: ({ aggregateId }) => aggregateId },
      result: z.object({ by: z.string() }),
      compensate: {
        run: ({ result }) => void expectTypeOf(result).toEqualTypeOf<{ by: string } | undefined>(),
      },
    });
  expectTypeOf<ResultsOf<typeof saga>>().toEqualTypeOf<{
    readonly review: unknown;
    readonly approval: { by: string };
  }>();
  expect(saga.plan.steps.map(({ completedBy }) => completedBy?.event)).toEqual(['review.done', 'approved']);
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
  // @ts-expect-error: a function has a method `call`, but is no compensation
  expect(() => saga.step('b', { run: () => 1, compensate: () => {} })).toThrow(
    "the saga 'order', step 'b' option 'compensate' must be an object with call, run or publish",
  );
  // @ts-expect-error: the id follows from the key of the step
  saga.step('b', { publish: () => ({ eventType: 't', aggregateId: 'a', data: 1, eventId: 'e' }) });
  expect(() => saga.waitFor('b', { event: 'e', failedBy: 'e', sagaId: () => 's1' })).toThrow(
    "the saga 'order', step 'b' must not be failed by the event 'e' that completes it",
  );
  // @ts-expect-error: the retries are the step's
  saga.step('b', { call: () => ({ service: 's', path: '/', retries: 2 }) });
});
