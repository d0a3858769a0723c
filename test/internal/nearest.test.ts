import { expect, it } from 'vitest';
import { nearest } from '../../src/internal/nearest.ts';

const known = ['weight', 'zone', 'host', 'metadata', 'healthCheckUrl'];

it.each([
  ['wieght', 'weight'],
  ['Weight', 'weight'],
  ['healthcheckURL', 'healthCheckUrl'],
  ['metadatas', 'metadata'],
  ['hots', undefined],
  ['hosts', 'host'],
  ['colour', undefined],
  ['', undefined],
])('of a few names the one nearest to %j is %j', (name, meant) => {
  expect(nearest(name, known)).toBe(meant);
});
