import { median } from '../../../bench/support/measure.ts';
import { groupBy } from '../../../src/internal/group-by.ts';
import type { Fault } from '../../support/faulty-instances.ts';
import { type EndedCall, isCircuitOpen, type ObservedClient } from '../../support/observed-client.ts';
import type { Row } from '../../support/trial.ts';

/** Failures in a row that eject an instance. */
const EJECTED_AFTER = 5;
/** Milliseconds of the default attempt timeout. */
const ATTEMPT_TIMEOUT = 10_000;
/** Milliseconds after which a probe is given up. */
const PROBE = 1_000;
/** Milliseconds by which this process may be late. */
const LATE = 500;

export interface PartialFailure {
  readonly situation: string;
  readonly client: ObservedClient;
  readonly fault: Fault;
  /** How many instances have it. */
  readonly bad: number;
  /** Whether the client knew all instances as well before. Default false. */
  readonly warm?: boolean;
  /** Whether a call that was sent may be sent again. Default true. */
  readonly repeatable?: boolean;
}

/**
 * Checks the requirements for calls while some instances of a service are bad and at least one is
 * well. In its words `unpaid` is a call that the retry budget could not pay a retry for, `late` one
 * that begins 0.5 s after the first failure (with instances that hang: once all of them are
 * ejected), and `after the fifth` one that begins when five failures of its instance are known.
 */
export function partialFailure({ situation, client, ...how }: PartialFailure): Row {
  const { measured, required, ok } = judge(client, how);
  const { calls, failures, openings } = client;
  const open = failures.filter(isCircuitOpen).length;
  const shown = [`${failures.length} of ${calls.length} fail`];
  if (openings.length > 0) shown.push(`breaker open ${openings.length} × for ${open}`);
  return {
    situation,
    measured: [...shown, ...measured].join(', '),
    required,
    ok: ok && open === 0 && openings.length === 0,
  };
}

type Judgement = { measured: string[]; required: string; ok: boolean };

function judge(client: ObservedClient, how: Omit<PartialFailure, 'situation' | 'client'>): Judgement {
  const { fault, bad, warm = false, repeatable = true } = how;
  if (fault === 'refused') return noneFails(client);
  if (!repeatable) return fewFail(client, bad, probesSince(client));
  if (fault === 'hang') return noneWaitsLong(client, bad);
  if (fault === 500) return fewFail(client, bad, 0);
  return warm ? noneFails(client) : soonNoneFails(client);
}

function noneFails({ failures }: ObservedClient): Judgement {
  return { measured: [], required: 'none fails', ok: failures.length === 0 };
}

function soonNoneFails({ failures, firstFailure, unpaid }: ObservedClient): Judgement {
  const later = failures.filter(({ begun }) => begun > firstFailure + 500).length;
  return {
    measured: [`${unpaid} unpaid`, `${later} late`],
    required: 'only unpaid, none late',
    ok: later === 0 && failures.length <= unpaid,
  };
}

/** An instance is known to hang by five failures in a row, as it is to fail. */
function noneWaitsLong({ calls, failures, ejectedAt, unpaid }: ObservedClient, bad: number): Judgement {
  const longest = longestOf(calls);
  const known = ejectedAt.size < bad ? Infinity : Math.max(...ejectedAt.values());
  const later = longestOf(calls.filter(({ begun }) => begun > known));
  const usual = median(calls.map(({ begun, ended }) => ended - begun).filter((time) => time < PROBE));
  const probe = Math.max(PROBE, 10 * usual);
  return {
    measured: [`${unpaid} unpaid`, `waits ${seconds(longest)}`, `late ${seconds(later)}`],
    required: `only unpaid; waits 20 s, late ${seconds(probe)}`,
    ok: failures.length <= unpaid && longest <= 2 * ATTEMPT_TIMEOUT + LATE && later <= probe + LATE,
  };
}

/** Calls that are not sent again fail, but not those that begin once their instance is known to be bad. */
function fewFail({ failures }: ObservedClient, bad: number, probes: number): Judgement {
  let late = 0;
  for (const [instanceId, group] of groupBy(failures, (call) => call.instanceId)) {
    // An agent of node:http cannot always tell where a request failed.
    const allowed = instanceId === undefined ? bad * EJECTED_AFTER : EJECTED_AFTER;
    const known = group.map(({ ended }) => ended).sort((a, b) => a - b)[allowed - 1] ?? Infinity;
    late += group.filter(({ begun }) => begun > known).length;
  }
  const most = bad * probes;
  return {
    measured: [`${late} after the fifth`],
    required: `at most ${most} after the fifth`,
    ok: late <= most,
  };
}

/** Probes of one instance since the first failure: the wait is 1 s, and twice as long each time. */
function probesSince({ calls, firstFailure }: ObservedClient): number {
  const elapsed = Math.max(0, ...calls.map(({ ended }) => ended)) - firstFailure;
  return Math.max(0, Math.floor(Math.log2(1 + elapsed / 1000)));
}

function longestOf(calls: readonly EndedCall[]): number {
  return calls.reduce((longest, { begun, ended }) => Math.max(longest, ended - begun), 0);
}

export function seconds(milliseconds: number): string {
  return `${(milliseconds / 1000).toFixed(1)} s`;
}

export function percent(share: number): string {
  return `${(100 * share).toFixed(0)} %`;
}
