import { originOf } from '../discovery/service-instance.ts';
import { clip, printable, span } from './printable.ts';
import type { InstanceReport, InvalidEntry, ServiceReport } from './service-report.ts';
import { alignColumns } from './table.ts';

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

/** The most characters that are shown of each text that strangers wrote. */
const LONGEST_VERSION = 40;
const LONGEST_ID = 128;
const LONGEST_REASON = 300;

/**
 * Formats the services for people as lines, with a block for each. `place` tells where there are
 * none.
 */
export function formatServices(reports: readonly ServiceReport[], place: string): string[] {
  if (reports.length === 0) return [`no services ${place}`];
  return reports.flatMap((report, index) => [...(index > 0 ? [''] : []), ...formatService(report)]);
}

/** Formats an invalid entry and the reason as one line. */
export function formatInvalid({ instanceId, reason }: InvalidEntry): string {
  const why = clip(printable(reason), LONGEST_REASON);
  return instanceId === undefined
    ? `cannot be read: ${why}`
    : `'${clip(printable(instanceId), LONGEST_ID)}' is not a registration: ${why}`;
}

function formatService({ serviceName, version, instances, invalid }: ServiceReport): string[] {
  const count = instances.length === 1 ? '1 instance' : `${instances.length || 'no'} instances`;
  const head =
    version > 0 ? `${serviceName}: ${count}, registry version ${version}` : `${serviceName}: ${count}`;
  return [
    head,
    ...(instances.length > 0 ? formatInstances(instances) : []),
    ...invalid.map((entry) => `  ! ${formatInvalid(entry)}`),
  ];
}

function formatInstances(instances: readonly InstanceReport[]): string[] {
  return alignColumns([COLUMNS, ...instances.map(toRow)]).map((line) => `  ${line}`);
}

function toRow({ instance, heartbeatAge, expiresIn }: InstanceReport): string[] {
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
