import { type ClientRequest, validateHeaderValue } from 'node:http';

/** What Node keeps of a request that has no socket yet; http-proxy-agent has relied on it for long. */
interface Rendered {
  _header: string;
  readonly outputData: { data: unknown }[];
}

/**
 * Completes the head of a request that is about to be sent: with the `Host`, in place of the one there is, if one is
 * given, and with those of the headers, names and values in turn, that it has not. Node writes the head down as soon
 * as the request is ended or its body begins, which it does while there is no socket yet: then what is written is
 * changed.
 *
 * @throws TypeError if a value cannot stand in a header.
 */
export function completeHead(
  request: ClientRequest,
  host: string | undefined,
  headers: readonly string[],
): void {
  if (request.headersSent) {
    changeHead(request as unknown as Rendered, host, headers);
    return;
  }
  if (host !== undefined) request.setHeader('Host', host);
  for (let index = 0; index < headers.length; index += 2) {
    if (!request.hasHeader(headers[index]!)) request.setHeader(headers[index]!, headers[index + 1]!);
  }
}

function changeHead(request: Rendered, host: string | undefined, headers: readonly string[]): void {
  const before = request._header;
  const lines = before.split('\r\n');
  const has = (name: string) => lines.some((line) => line.toLowerCase().startsWith(`${name}:`));
  const added: string[] = [];
  for (let index = 0; index < headers.length; index += 2) {
    const name = headers[index]!;
    const value = headers[index + 1]!;
    validateHeaderValue(name, value);
    if (!has(name)) added.push(`${name}: ${value}`);
  }
  if (host !== undefined) lines[lines.findIndex((line) => /^host:/i.test(line))] = `Host: ${host}`;
  lines.splice(1, 0, ...added);
  const after = lines.join('\r\n');
  request._header = after;
  const first = request.outputData[0];
  if (typeof first?.data === 'string' && first.data.startsWith(before)) {
    first.data = after + first.data.slice(before.length);
  }
}
