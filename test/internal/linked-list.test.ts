import fc from 'fast-check';
import { expect, it } from 'vitest';
import { type Linked, LinkedList } from '../../src/internal/linked-list.ts';

class Item implements Linked<Item> {
  next: Item | undefined = undefined;
  previous: Item | undefined = undefined;
}

function items(list: LinkedList<Item>): Item[] {
  const found: Item[] = [];
  for (let item = list.head; item !== undefined; item = item.next) found.push(item);
  return found;
}

it('a list holds what an array would, whatever is appended, removed and shifted', () => {
  const step = fc.tuple(fc.constantFrom('append' as const, 'remove' as const, 'shift' as const), fc.nat(20));
  fc.assert(
    fc.property(fc.array(step, { maxLength: 80 }), (steps) => {
      const list = new LinkedList<Item>();
      const array: Item[] = [];
      for (const [what, index] of steps) {
        if (what === 'append') {
          const item = new Item();
          list.append(item);
          array.push(item);
        } else if (what === 'shift') {
          expect(list.shift()).toBe(array.shift());
        } else if (array.length > 0) {
          const [item] = array.splice(index % array.length, 1);
          list.remove(item!);
          expect(item).toMatchObject({ next: undefined, previous: undefined });
        }
        expect(list.length).toBe(array.length);
        expect(items(list).every((item, at) => item === array[at])).toBe(true);
        array.forEach((item, at) => {
          expect(item.previous).toBe(array[at - 1]);
          expect(item.next).toBe(array[at + 1]);
        });
      }
    }),
  );
});

it('an item that was taken out can stand in a list again', () => {
  const [one, two] = [new LinkedList<Item>(), new LinkedList<Item>()];
  const item = new Item();
  one.append(item);
  one.remove(item);
  two.append(item);
  expect([one.length, two.length]).toEqual([0, 1]);
  expect(two.shift()).toBe(item);
  expect(two.shift()).toBeUndefined();
});
