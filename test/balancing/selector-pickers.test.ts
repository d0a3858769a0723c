import { expect, it } from 'vitest';
import type { Selector } from '../../src/balancing/selector.ts';
import { SelectorPickers } from '../../src/balancing/selector-pickers.ts';
import type { Candidate, Picker } from '../../src/balancing/strategy.ts';

function selections() {
  const made: Selector[] = [];
  const told: Selector[] = [];
  return {
    made,
    told,
    selections: new SelectorPickers((selector) => {
      made.push({ ...selector });
      const picker: Picker = () => undefined;
      picker.loadChanged = () => told.push({ ...selector });
      return picker;
    }),
  };
}

it('SelectorPickers make one picker for all selectors with the same entries', () => {
  const { selections: some, made } = selections();
  const picker = some.pickerFor({ version: '2', region: 'eu' });
  expect(some.pickerFor({ region: 'eu', version: '2' })).toBe(picker);
  expect(some.pickerFor({ version: '2' })).not.toBe(picker);
  expect(made).toHaveLength(2);
});

it('SelectorPickers go by the entries of a selector now, not by those it had before', () => {
  const { selections: some, made } = selections();
  const selector = { version: '2' };
  some.pickerFor(selector);
  selector.version = '3';
  some.pickerFor(selector);
  expect(made).toEqual([{ version: '2' }, { version: '3' }]);
});

it('SelectorPickers keep the hundred pickers that were used last', () => {
  const { selections: some, made, told } = selections();
  for (let user = 0; user < 1_000; user++) {
    some.pickerFor({ user: String(user) });
    some.pickerFor({ version: '2' });
  }
  expect(made).toHaveLength(1_001);
  some.loadChanged({} as Candidate);
  expect(told).toHaveLength(100);
});

it('SelectorPickers keep no picker of a selector that is longer than all kept ones may be', () => {
  const { selections: some, made } = selections();
  some.pickerFor({ version: '2' });
  some.pickerFor({ version: 'x'.repeat(1_000_000) });
  some.pickerFor({ version: 'x'.repeat(1_000_000) });
  some.pickerFor({ version: '2' });
  expect(made).toHaveLength(3);
  for (let user = 0; user < 100; user++) some.pickerFor({ user: String(user).padEnd(100_000) });
  some.pickerFor({ version: '2' });
  expect(made).toHaveLength(104);
});

it('SelectorPickers tell each picker with loadChanged once of a load', () => {
  let told = 0;
  const one: Picker = () => undefined;
  one.loadChanged = () => told++;
  const some = new SelectorPickers((selector) => ('none' in selector ? () => undefined : one));
  const selectors: Selector[] = [{ version: '2' }, { version: '3' }, { none: 'such' }];
  for (const selector of selectors) some.pickerFor(selector);
  some.loadChanged({} as Candidate);
  expect(told).toBe(1);
  some.pickerFor({ version: '4' });
  some.loadChanged({} as Candidate);
  expect(told).toBe(2);
});

it.each([[null], ['version'], [{ version: 2 }]])(
  'SelectorPickers reject %o, which is no selector',
  (value) => {
    const { selections: some, made } = selections();
    expect(() => some.pickerFor(value as unknown as Selector)).toThrow('select');
    expect(made).toEqual([]);
  },
);
