import { type ClientRequest, validateHeaderValue } from 'node:http';
import { PROPAGATED_HEADERS, pairsOf, valuesToSend } from '../client/outgoing-headers.ts';

/**
 * The fields in which Node keeps a head that is not sent yet; http-proxy-agent has relied on them
 * for long.
 */
interface Rendered {
  _header: string;
  readonly outputData: { data: unknown }[];
}

/**
 * Completes the head of a request that is about to be sent: with the `Host`, in place of the one
 * there is, if one is given, and with the headers, names and values in turn. What the caller has
 * set of these is sent once: see `valuesToSend`. Node writes the head down as soon as the request
 * is ended or its body begins, which it does while there is no socket yet: then what is written is
 * changed.
 *
 * @param elapsed milliseconds since the caller made the request
 * @throws TypeError if a value cannot stand in a header.
 */
export function completeHead(
  request: ClientRequest,
  host: string | undefined,
  headers: readonly string[],
  elapsed: number,
): void {
  const ours = new Map(pairsOf(headers));
  // Node has written the head down, and keeps it in fields that its types leave out.
  if (request.headersSent) changeHead(request as unknown as Rendered, host, ours, elapsed);
  else setHead(request, host, ours, elapsed);
}

/** Reads the values of a header, whose name is in lower case; undefined if the request has none. */
export function valuesOf(request: ClientRequest, name: string): string[] | undefined {
  if (!request.headersSent) {
    const value = request.getHeader(name);
    return value === undefined ? undefined : [value].flat().map(String);
  }
  // As above: `_header` is the head as Node has written it down.
  return readLines((request as unknown as Rendered)._header.split('\r\n'), new Set([name])).given.get(name);
}

function setHead(
  request: ClientRequest,
  host: string | undefined,
  ours: ReadonlyMap<string, string>,
  elapsed: number,
): void {
  if (host !== undefined) request.setHeader('Host', host);
  const given = new Map<string, string[]>();
  for (const name of PROPAGATED_HEADERS) {
    const values = valuesOf(request, name);
    if (values !== undefined) given.set(name, values);
  }
  for (const name of PROPAGATED_HEADERS) {
    const values = valuesToSend(name, given, ours, elapsed);
    if (values.length > 0) request.setHeader(name, values.length === 1 ? values[0]! : values);
    else request.removeHeader(name);
  }
}

function changeHead(
  request: Rendered,
  host: string | undefined,
  ours: ReadonlyMap<string, string>,
  elapsed: number,
): void {
  const before = request._header;
  const { given, others: kept } = readLines(before.split('\r\n'), PROPAGATED_HEADERS);
  if (host !== undefined) kept[kept.findIndex((line) => /^host:/i.test(line))] = `Host: ${host}`;
  const added: string[] = [];
  for (const name of PROPAGATED_HEADERS) {
    for (const value of valuesToSend(name, given, ours, elapsed)) {
      validateHeaderValue(name, value);
      added.push(`${name}: ${value}`);
    }
  }
  kept.splice(1, 0, ...added);
  const after = kept.join('\r\n');
  request._header = after;
  const first = request.outputData[0];
  if (typeof first?.data === 'string' && first.data.startsWith(before)) {
    first.data = after + first.data.slice(before.length);
  }
}

/**
 * The values that the lines of a head give under some names, in lower case, and the other lines.
 */
function readLines(
  lines: readonly string[],
  names: ReadonlySet<string>,
): { given: Map<string, string[]>; others: string[] } {
  const given = new Map<string, string[]>();
  const others = lines.filter((line, index) => {
    const [, name, value] = (index > 0 && /^([^:]+):[ \t]*(.*)$/.exec(line)) || [];
    const lower = name?.toLowerCase();
    if (lower === undefined || !names.has(lower)) return true;
    given.set(lower, [...(given.get(lower) ?? []), value!]);
    return false;
  });
  return { given, others };
}
