import { originOf } from '../discovery/service-instance.ts';
import type { Output } from './output.ts';
import { clip, printable, printableJson } from './printable.ts';
import { listDifferences } from './service-changes.ts';
import { toJsonInstance } from './service-report.ts';
import { formatInvalid, formatServices } from './service-table.ts';
import type { ChangeEvent, Staleness, WatchState, WatchView } from './service-watch.ts';

const CLEAR_SCREEN = '\x1b[2J';
const CURSOR_HOME = '\x1b[H';
const ERASE_TO_END_OF_LINE = '\x1b[K';
const ERASE_BELOW = '\x1b[J';

/** The most characters that are shown of a change that strangers wrote. */
const LONGEST_DIFFERENCE = 200;

/** Creates the view for a terminal: the services, drawn anew each time, as far as they fit. */
export function createScreenView(output: Output, place: string): WatchView {
  let begun = false;
  return (state) => {
    const columns = output.stream.columns || 80;
    const rows = output.stream.rows || 24;
    const table = formatServices(state.reports, place);
    const lines = [`Services ${place}`, statusLine(state), '', ...table];
    const shown = lines.length < rows ? lines : lines.slice(0, rows - 2);
    if (shown.length < lines.length) shown.push(`… and ${lines.length - shown.length} lines more`);
    const drawn = shown.map((line) => `${clip(line, columns)}${ERASE_TO_END_OF_LINE}\n`).join('');
    output.write(`${begun ? '' : CLEAR_SCREEN}${CURSOR_HOME}${drawn}${ERASE_BELOW}`);
    begun = true;
  };
}

/** Creates the view for other outputs: the services once, then a line for each change. */
export function createLinesView(output: Output, place: string): WatchView {
  let begun = false;
  return (state, events) => {
    const table = begun ? [] : formatServices(state.reports, place);
    const shown = events.filter(({ change }) => begun || (change !== 'present' && change !== 'invalid'));
    const now = new Date().toISOString();
    output.writeLines([...table, ...shown.map((event) => `${now}  ${eventText(event)}`)]);
    begun = true;
  };
}

/**
 * Creates the view for programs: a line of JSON for each instance at the start, then for each
 * change.
 */
export function createJsonLinesView(output: Output): WatchView {
  return (_, events) => {
    const time = new Date().toISOString();
    output.writeLines(events.map((event) => printableJson({ time, ...toJsonEvent(event) })));
  };
}

function statusLine({ stale }: WatchState): string {
  return stale === undefined ? `up to date at ${new Date().toISOString()}` : staleText(stale);
}

function staleText({ since, reason }: Staleness): string {
  return `stale since ${since.toISOString()}: ${printable(reason)}`;
}

function eventText(event: ChangeEvent): string {
  switch (event.change) {
    case 'stale':
      return staleText(event);
    case 'fresh':
      return 'up to date again';
    case 'invalid':
      return `${event.serviceName}  ! ${formatInvalid(event.entry)}`;
    case 'changed': {
      const { serviceName, before, report } = event;
      const differences = listDifferences(before.instance, report.instance).map((text) =>
        clip(printable(text), LONGEST_DIFFERENCE),
      );
      return `${serviceName}  ${report.instance.instanceId} changed: ${differences.join(', ')}`;
    }
    default: {
      const { serviceName, change, report } = event;
      const { instance } = report;
      return `${serviceName}  ${instance.instanceId} ${change}: ${originOf(instance)}, ${instance.status}`;
    }
  }
}

function toJsonEvent(event: ChangeEvent) {
  switch (event.change) {
    case 'stale':
      return { change: event.change, reason: event.reason };
    case 'fresh':
      return { change: event.change };
    case 'invalid':
      return { change: event.change, serviceName: event.serviceName, ...event.entry };
    case 'changed': {
      const { change, serviceName, before, report } = event;
      return { change, serviceName, instance: toJsonInstance(report), before: toJsonInstance(before) };
    }
    default:
      return {
        change: event.change,
        serviceName: event.serviceName,
        instance: toJsonInstance(event.report),
      };
  }
}
