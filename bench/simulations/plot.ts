export interface Axis {
  label: string;
  /** `tail` is for shares close to 1: 0.9, 0.99 and 0.999 are equally far apart. Default `linear`. */
  scale?: 'linear' | 'log' | 'tail';
  /** Where the axis begins and ends. Default: with the smallest and the largest value. */
  from?: number;
  to?: number;
  format?: (value: number) => string;
}

export interface Series {
  name: string;
  points: readonly (readonly [x: number, y: number])[];
}

/** A stretch of the x axis in which the system is in trouble. */
export interface Band {
  from: number;
  to: number;
  label: string;
}

export interface Plot {
  title: string;
  x: Axis;
  y: Axis;
  series: readonly Series[];
  band?: Band;
}

const WIDTH = 760;
const HEIGHT = 440;
const AREA = { left: 70, right: 716, top: 84, bottom: 384 };

// Okabe and Ito's colours, told apart by the colour-blind too; the darker ones are lighter on dark ground.
const LIGHT = ['#0072b2', '#d55e00', '#009e73', '#cc79a7', '#b8860b'];
const DARK = ['#56b4e9', '#ff8c42', '#2fc79a', '#e6a3c6', '#f0e442'];
const DASHES = ['none', '8 3', '2 3', '10 3 2 3', '5 5'];

function colours(ink: string, faint: string, lines: readonly string[]): string {
  const series = lines.map((colour, index) => `.s${index}{stroke:${colour}}`).join('');
  return `text{fill:${ink}}.grid{stroke:${faint}}.band{fill:${faint}}${series}`;
}

const STYLE =
  'text{font:13px system-ui,sans-serif}.title{font-size:16px;font-weight:600}.grid{stroke-width:1}' +
  '.line{fill:none;stroke-width:2.2;stroke-linejoin:round}.band{opacity:.45}' +
  `${DASHES.map((dash, index) => `.s${index}{stroke-dasharray:${dash}}`).join('')}` +
  `${colours('#24292f', '#d0d7de', LIGHT)}` +
  `@media(prefers-color-scheme:dark){${colours('#e6edf3', '#3d444d', DARK)}}`;

/** A plot of lines as SVG that is readable on light and on dark ground. The same data gives the same bytes. */
export function plot({ title, x, y, series, band }: Plot): string {
  const all = series.flatMap(({ points }) => points);
  const xAxis = scaleOf(
    x,
    all.map((point) => point[0]),
    [AREA.left, AREA.right],
  );
  const yAxis = scaleOf(
    y,
    all.map((point) => point[1]),
    [AREA.bottom, AREA.top],
  );
  const parts = [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${HEIGHT}" role="img" aria-label="${escaped(title)}">`,
    `<style>${STYLE}</style>`,
    `<text class="title" x="${AREA.left}" y="26">${escaped(title)}</text>`,
  ];
  if (band !== undefined) {
    const left = xAxis.at(band.from);
    parts.push(
      `<rect class="band" x="${px(left)}" y="${AREA.top}" width="${px(xAxis.at(band.to) - left)}" height="${AREA.bottom - AREA.top}"/>`,
      `<text x="${px(left + 6)}" y="${AREA.top + 16}">${escaped(band.label)}</text>`,
    );
  }
  for (const tick of xAxis.ticks) {
    const at = px(xAxis.at(tick));
    parts.push(
      `<line class="grid" x1="${at}" y1="${AREA.top}" x2="${at}" y2="${AREA.bottom}"/>`,
      `<text x="${at}" y="${AREA.bottom + 20}" text-anchor="middle">${escaped(xAxis.format(tick))}</text>`,
    );
  }
  for (const tick of yAxis.ticks) {
    const at = yAxis.at(tick);
    parts.push(
      `<line class="grid" x1="${AREA.left}" y1="${px(at)}" x2="${AREA.right}" y2="${px(at)}"/>`,
      `<text x="${AREA.left - 8}" y="${px(at + 4)}" text-anchor="end">${escaped(yAxis.format(tick))}</text>`,
    );
  }
  const middle = { x: (AREA.left + AREA.right) / 2, y: (AREA.top + AREA.bottom) / 2 };
  parts.push(
    `<text x="${middle.x}" y="${HEIGHT - 12}" text-anchor="middle">${escaped(x.label)}</text>`,
    `<text transform="translate(16 ${middle.y}) rotate(-90)" text-anchor="middle">${escaped(y.label)}</text>`,
  );
  let legend = AREA.left;
  series.forEach(({ name, points }, index) => {
    const line = points
      .map(([pointX, pointY]) => `${px(xAxis.at(pointX))},${px(yAxis.at(pointY))}`)
      .join(' ');
    parts.push(
      `<polyline class="line s${index}" points="${line}"/>`,
      `<line class="line s${index}" x1="${legend}" y1="54" x2="${legend + 30}" y2="54"/>`,
      `<text x="${legend + 36}" y="58">${escaped(name)}</text>`,
    );
    legend += 60 + Math.round(name.length * 6.8);
  });
  return `${[...parts, '</svg>'].join('\n')}\n`;
}

interface Scale {
  at(value: number): number;
  ticks: number[];
  format(value: number): string;
}

function scaleOf(axis: Axis, values: readonly number[], [start, end]: [number, number]): Scale {
  const { scale = 'linear', format = (value: number) => value.toLocaleString('en') } = axis;
  const low = axis.from ?? Math.min(...values);
  const high = axis.to ?? Math.max(...values);
  const steps = { linear: linearSteps, log: logSteps, tail: tailSteps }[scale](low, high);
  // An axis of whole steps, but for one that is to end elsewhere.
  const from = axis.from ?? steps[0]!;
  const to = axis.to ?? steps.at(-1)!;
  const place = { linear: (value: number) => value, log: Math.log10, tail: nines }[scale];
  const [first, last] = [place(from), place(to)];
  return {
    at: (value) => {
      const part = (place(Math.min(to, Math.max(from, value))) - first) / (last - first);
      return start + part * (end - start);
    },
    ticks: steps.filter((step) => step >= from && step <= to),
    format,
  };
}

/** How many nines a share has: 1 for 0.9, 2 for 0.99. */
function nines(share: number): number {
  return -Math.log10(1 - share);
}

function linearSteps(low: number, high: number): number[] {
  const rough = (high - low) / 6;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].find((factor) => factor * power >= rough)! * power;
  const steps: number[] = [];
  for (let index = Math.floor(low / step); ; index++) {
    // From an index, so that errors of rounding do not add up.
    steps.push(Number((index * step).toPrecision(12)));
    if (index * step >= high) return steps;
  }
}

function logSteps(low: number, high: number): number[] {
  const steps = [10 ** Math.floor(Math.log10(low))];
  while (steps.at(-1)! < high) steps.push(steps.at(-1)! * 10);
  return steps;
}

function tailSteps(low: number, high: number): number[] {
  return [0.5, 0.9, 0.99, 0.999, 0.9999, 0.99999].filter((step) => step >= low && step <= high);
}

/** '99.9 %'. */
export function percentLabel(share: number): string {
  return `${Number((100 * share).toPrecision(6))} %`;
}

function px(value: number): string {
  return String(Math.round(value * 10) / 10);
}

function escaped(text: string): string {
  return text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('"', '&quot;');
}
