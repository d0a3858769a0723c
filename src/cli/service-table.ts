import { originOf } from '../discovery/service-instance.ts';
import { clip, printable, span } from './printable.ts';
import type { InstanceReport, InvalidEntry, ServiceReport } from './service-report.ts';

const COLUMNS = [
  'INSTANCE',
  'ORIGIN',
  'STATUS',
  'WEIGHT',
  'ZONE',
  'HEARTBEAT',
  'EXPIRES',
  'VERSION',
] as const;

/** Of what strangers wrote, so much is shown. */
const LONGEST_VERSION = 40;
const LONGEST_ID = 128;
const LONGEST_REASON = 300;

/** The services for people, a block for each, in lines. `place` says where there are none. */
export function servicesTable(reports: readonly ServiceReport[], place: string): string[] {
  if (reports.length === 0) return [`no services ${place}`];
  return reports.flatMap((report, index) => [...(index > 0 ? [''] : []), ...block(report)]);
}

/** An entry that is not a registration, and why, in one line. */
export function invalidText({ instanceId, reason }: InvalidEntry): string {
  const why = clip(printable(reason), LONGEST_REASON);
  return instanceId === undefined
    ? `cannot be read: ${why}`
    : `'${clip(printable(instanceId), LONGEST_ID)}' is not a registration: ${why}`;
}

function block({ serviceName, version, instances, invalid }: ServiceReport): string[] {
  const count = instances.length === 1 ? '1 instance' : `${instances.length || 'no'} instances`;
  const head =
    version > 0 ? `${serviceName}: ${count}, registry version ${version}` : `${serviceName}: ${count}`;
  return [
    head,
    ...(instances.length > 0 ? aligned([COLUMNS, ...instances.map(row)]) : []),
    ...invalid.map((entry) => `  ! ${invalidText(entry)}`),
  ];
}

function row({ instance, heartbeatAge, expiresIn }: InstanceReport): string[] {
  const { instanceId, status, weight, zone = '-', metadata } = instance;
  const version = clip(printable(metadata.version ?? '-'), LONGEST_VERSION);
  return [
    instanceId,
    originOf(instance),
    status,
    String(weight),
    zone,
    span(heartbeatAge),
    span(expiresIn),
    version,
  ];
}

function aligned(rows: readonly (readonly string[])[]): string[] {
  const widths = COLUMNS.map((_, column) =>
    rows.reduce((width, cells) => Math.max(width, cells[column]!.length), 0),
  );
  return rows.map((cells) => {
    const padded = cells.map((cell, column) => cell.padEnd(widths[column]!));
    return `  ${padded.join('  ')}`.trimEnd();
  });
}
