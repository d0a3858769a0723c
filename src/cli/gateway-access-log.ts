import type { AccessLog } from '../gateway/access-log.ts';
import type { Output } from './output.ts';
import { printable, printableJson } from './printable.ts';

/** Creates an access log that writes a line for each request to standard output. */
export function createAccessLog(output: Output, json: boolean): AccessLog {
  return (entry) => {
    const time = new Date().toISOString();
    const duration = Math.round(entry.duration * 10) / 10;
    if (json) {
      output.writeLines([printableJson({ time, ...entry, duration })]);
      return;
    }
    const { method, path, status, bytes, requestId, address, service = '-', instanceId = '-' } = entry;
    const request = method === '' ? '-' : `${method} ${path}`;
    const line = `${time} ${address} "${request}" ${status} ${bytes} ${duration}ms ${service} ${instanceId} ${requestId}`;
    output.writeLines([printable(line)]);
  };
}
