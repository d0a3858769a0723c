import { expect } from 'vitest';
import type { SagaEntry } from '../../src/index.ts';
import type { AnySaga } from '../../src/saga/orchestrator-options.ts';

/** Checks that the entries of a saga's journal are in an order in which they may be. */
export function checkJournal(saga: AnySaga, entries: readonly SagaEntry[]): void {
  const { stages, pivotAt } = saga.plan;
  const steps = stages.flat().map(({ name }) => name);
  const beforePivot = stages.slice(0, pivotAt).flat();
  const reversible = beforePivot.filter(({ compensate }) => compensate !== undefined).map(({ name }) => name);
  // A cancellation that comes with the last result before the pivot is the earlier one of both.
  const messaged = entries.some(({ type }) => type === 'input');
  const completed: string[] = [];
  const harmless = new Map(steps.map((name) => [name, 0]));
  const invoked = new Map(steps.map((name) => [name, 0]));
  let turned = false;
  let compensating: string | undefined;
  const undone = new Set<string>();
  for (const entry of entries) {
    switch (entry.type) {
      case 'invoke': {
        expect(turned, 'nothing is invoked after the turn').toBe(false);
        const stage = stages.findIndex((items) => items.some(({ name }) => name === entry.step));
        const missing = stages
          .slice(0, stage)
          .flat()
          .filter(({ name }) => !completed.includes(name));
        expect(missing, 'a step begins after all stages before its own').toEqual([]);
        expect(completed).not.toContain(entry.step);
        invoked.set(entry.step, invoked.get(entry.step)! + 1);
        expect(entry.attempt).toBe(invoked.get(entry.step));
        break;
      }
      case 'complete':
        completed.push(entry.step);
        break;
      case 'fail':
        if (entry.outcome === 'not-happened') harmless.set(entry.step, harmless.get(entry.step)! + 1);
        break;
      case 'turn':
        expect(turned).toBe(false);
        if (!messaged)
          expect(pivotAt !== Infinity && beforePivot.every(({ name }) => completed.includes(name))).toBe(
            false,
          );
        turned = true;
        break;
      case 'compensate': {
        expect(turned).toBe(true);
        expect(reversible).toContain(entry.step);
        expect(compensating === undefined || compensating === entry.step, 'one at a time').toBe(true);
        compensating = entry.step;
        const inDoubt = reversible.filter(
          (name) =>
            !undone.has(name) && !completed.includes(name) && invoked.get(name)! > harmless.get(name)!,
        );
        const latest = completed.filter((name) => reversible.includes(name) && !undone.has(name)).at(-1);
        if (inDoubt.length > 0) expect(inDoubt).toContain(entry.step);
        else expect(entry.step).toBe(latest);
        break;
      }
      case 'compensated':
        compensating = undefined;
        undone.add(entry.step);
        break;
      case 'end':
        if (entry.status === 'completed') expect(completed.toSorted()).toEqual(steps.toSorted());
        break;
    }
  }
}
