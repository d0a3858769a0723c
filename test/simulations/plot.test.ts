import { expect, it } from 'vitest';
import { plot } from '../../bench/simulations/plot.ts';

it('draws a title, both axes, a legend and a line for each series, on light and on dark ground', () => {
  const svg = plot({
    title: 'This & that',
    x: { label: 'seconds', from: 0 },
    y: { label: 'calls', scale: 'log' },
    series: [
      {
        name: 'ours',
        points: [
          [0, 1],
          [10, 100],
        ],
      },
      {
        name: 'theirs',
        points: [
          [0, 10],
          [10, 10],
        ],
      },
    ],
    band: { from: 2, to: 4, label: 'outage' },
  });
  for (const text of ['This &amp; that', 'seconds', 'calls', 'ours', 'theirs', 'outage'])
    expect(svg).toContain(`>${text}<`);
  expect(svg.match(/<polyline/g)).toHaveLength(2);
  expect(svg).toContain('prefers-color-scheme:dark');
  expect(svg).not.toMatch(/NaN|Infinity|undefined/);
});
