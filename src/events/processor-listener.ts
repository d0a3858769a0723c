import type { Emitter } from '../internal/emitter.ts';
import type { EventBusEvents } from './bus-events.ts';
import type { ProcessorListener } from './partition-processor.ts';
import { type SubscriptionPlan, warnOfHeld } from './subscription-plan.ts';

/** Creates the listener of a processor that emits what it is told as the events of a bus. */
export function createListener(bus: Emitter<EventBusEvents>, { group }: SubscriptionPlan): ProcessorListener {
  return {
    handled(event, attempt) {
      if (bus.isObserved('handle')) bus.emit('handle', { event, group, attempt });
    },
    failed(event, error, attempt, retryIn) {
      bus.emit('fail', { event, group, error, attempt, retryIn });
    },
    held(event, until) {
      warnOfHeld(event);
      bus.emit('hold', { event, group, until });
    },
    died(event, { errors }) {
      if (group !== undefined) bus.emit('die', { event, group, errors });
    },
  };
}
