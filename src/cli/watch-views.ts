import { originOf } from '../discovery/service-instance.ts';
import type { Output } from './output.ts';
import { clip, printable, printableJson } from './printable.ts';
import { differences } from './service-changes.ts';
import { toJsonInstance } from './service-report.ts';
import { invalidText, servicesTable } from './service-table.ts';
import type { ChangeEvent, Staleness, WatchState, WatchView } from './service-watch.ts';

const CLEAR_SCREEN = '\x1b[2J';
const CURSOR_HOME = '\x1b[H';
const ERASE_TO_END_OF_LINE = '\x1b[K';
const ERASE_BELOW = '\x1b[J';

/** Of a value that a stranger wrote, so much is shown. */
const LONGEST_DIFFERENCE = 200;

/** On a terminal: what there is, drawn anew each time, as far as it fits. */
export function screenView(output: Output, place: string): WatchView {
  let begun = false;
  return (state) => {
    const columns = output.stream.columns || 80;
    const rows = output.stream.rows || 24;
    const table = servicesTable(state.reports, place);
    const lines = [`Services ${place}`, statusLine(state), '', ...table];
    const shown = lines.length < rows ? lines : lines.slice(0, rows - 2);
    if (shown.length < lines.length) shown.push(`… and ${lines.length - shown.length} lines more`);
    const drawn = shown.map((line) => `${clip(line, columns)}${ERASE_TO_END_OF_LINE}\n`).join('');
    output.write(`${begun ? '' : CLEAR_SCREEN}${CURSOR_HOME}${drawn}${ERASE_BELOW}`);
    begun = true;
  };
}

/** Elsewhere: what there is once, then a line for each change. */
export function linesView(output: Output, place: string): WatchView {
  let begun = false;
  return (state, news) => {
    const there = begun ? [] : servicesTable(state.reports, place);
    const told = news.filter(({ change }) => begun || (change !== 'present' && change !== 'invalid'));
    const now = new Date().toISOString();
    output.writeLines([...there, ...told.map((item) => `${now}  ${eventText(item)}`)]);
    begun = true;
  };
}

/** For programs: a line of JSON for each instance that is there, then for each change. */
export function jsonLinesView(output: Output): WatchView {
  return (_, news) => {
    const time = new Date().toISOString();
    output.writeLines(news.map((item) => printableJson({ time, ...toJsonEvent(item) })));
  };
}

function statusLine({ stale }: WatchState): string {
  return stale === undefined ? `up to date at ${new Date().toISOString()}` : staleText(stale);
}

function staleText({ since, reason }: Staleness): string {
  return `stale since ${since.toISOString()}: ${printable(reason)}`;
}

function eventText(news: ChangeEvent): string {
  switch (news.change) {
    case 'stale':
      return staleText(news);
    case 'fresh':
      return 'up to date again';
    case 'invalid':
      return `${news.serviceName}  ! ${invalidText(news.entry)}`;
    case 'changed': {
      const { serviceName, before, report } = news;
      const what = differences(before.instance, report.instance).map((text) =>
        clip(printable(text), LONGEST_DIFFERENCE),
      );
      return `${serviceName}  ${report.instance.instanceId} changed: ${what.join(', ')}`;
    }
    default: {
      const { serviceName, change, report } = news;
      const { instance } = report;
      return `${serviceName}  ${instance.instanceId} ${change}: ${originOf(instance)}, ${instance.status}`;
    }
  }
}

function toJsonEvent(news: ChangeEvent) {
  switch (news.change) {
    case 'stale':
      return { change: news.change, reason: news.reason };
    case 'fresh':
      return { change: news.change };
    case 'invalid':
      return { change: news.change, serviceName: news.serviceName, ...news.entry };
    case 'changed': {
      const { change, serviceName, before, report } = news;
      return { change, serviceName, instance: toJsonInstance(report), before: toJsonInstance(before) };
    }
    default:
      return {
        change: news.change,
        serviceName: news.serviceName,
        instance: toJsonInstance(news.report),
      };
  }
}
