import type { RequestSummary } from '../guard/incoming-request.ts';

export const DEFAULT_PREFIX = '/health';

/** The paths of the probes of a Health. */
export function probePaths(prefix: string): [live: string, ready: string] {
  return [`${prefix}/live`, `${prefix}/ready`];
}

export function isProbe({ method, path }: RequestSummary, prefix: string = DEFAULT_PREFIX): boolean {
  return (method === 'GET' || method === 'HEAD') && probePaths(prefix).includes(path);
}
