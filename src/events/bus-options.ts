import {
  type Check,
  integer,
  matching,
  number,
  requireOption,
  validateOptions,
} from '../internal/validate.ts';
import type { EventMap } from './domain-event.ts';
import { CODEC_CHECKS, EventCodec, type EventCodecOptions } from './event-codec.ts';

/** The options that all buses have. */
export interface BusOptions<Events extends EventMap = EventMap> extends EventCodecOptions<Events> {
  /** The service that publishes: letters, digits and . _ : - (at most 128). */
  source: string;
  /**
   * Partitions of each topic: so many handlers of a group can work at once in order. Fixed when the
   * first event is stored. Default 8.
   */
  partitions?: number | undefined;
  /**
   * Milliseconds for which an event is kept at least. An event that a group has not handled is kept
   * for longer. Default 86,400,000, a day.
   */
  retention?: number | undefined;
  /**
   * The most events of a partition. From 80 % on the event `nearlyFull` is emitted; then publishing
   * rejects, and nothing is dropped. Default 1,000,000.
   */
  maxLength?: number | undefined;
}

/** Checks a name of a service or a group. */
export const checkName = matching(/^[\w.:-]{1,128}$/, 'letters, digits and . _ : - (at most 128)');

export const BUS_CHECKS = {
  ...CODEC_CHECKS,
  source: checkName,
  partitions: integer(1, 1_024),
  retention: number(0),
  maxLength: integer(1),
};

/** The part of a partition's maxLength from which it counts as nearly full. */
export const NEARLY_FULL = 0.8;

/** The options of a bus with their defaults. */
export interface BusSettings {
  readonly codec: EventCodec;
  readonly partitions: number;
  readonly retention: number;
  readonly maxLength: number;
}

/** @param owner the class whose options they are, for errors */
export function readBusOptions<Events extends EventMap>(
  owner: string,
  options: BusOptions<Events>,
): BusSettings {
  const { source, partitions = 8, retention = 86_400_000, maxLength = 1_000_000, ...rest } = options;
  const { schemas, upcast, newerVersion, holdFor } = rest;
  const codec = new EventCodec(owner, source, {
    schemas,
    upcast,
    newerVersion,
    holdFor,
  } as EventCodecOptions);
  return { codec, partitions, retention, maxLength };
}

/**
 * Checks the options of a method that is about one group.
 *
 * @param owner the method, for errors
 * @throws TypeError that names the option that is not allowed
 */
export function checkGroupOptions(owner: string, options: object, table: Record<string, Check> = {}): void {
  validateOptions(owner, options, { group: checkName, ...table });
  requireOption(owner, options, 'group');
}
