import { type ClientRequest, validateHeaderValue } from 'node:http';
import { PROPAGATED_HEADERS, pairsOf, valuesToSend } from '../client/outgoing-headers.ts';

/**
 * A request that has no socket yet, with the members that Node's types leave out. http-proxy-agent
 * has relied on them for long.
 */
interface UnsentRequest extends ClientRequest {
  /** `_header` is the head as Node will write it, once that is rendered. */
  _header: string;
  /** `outputData` holds what waits for the socket: first the head, maybe with some of the body. */
  readonly outputData: { data: unknown }[];
}

/**
 * Completes the head of a request that is about to be sent. `host`, if given, replaces its `Host`.
 * Each of the `headers`, names and values in turn, is sent once, also where the caller has set it:
 * see `valuesToSend`. Node renders the head as soon as the request is ended or its body begins,
 * even without a socket: then this changes the rendered head.
 *
 * @param elapsed milliseconds since the caller made the request
 * @throws TypeError if a value is not allowed in a header
 */
export function completeHead(
  request: ClientRequest,
  host: string | undefined,
  headers: readonly string[],
  elapsed: number,
): void {
  const ours = new Map(pairsOf(headers));
  if (request.headersSent) changeHead(request as UnsentRequest, host, ours, elapsed);
  else setHead(request, host, ours, elapsed);
}

/** Reads the values of some headers, by their names in lower case. */
export function readValues(request: ClientRequest, names: ReadonlySet<string>): Map<string, string[]> {
  if (request.headersSent) return readLines((request as UnsentRequest)._header.split('\r\n'), names).given;
  const given = new Map<string, string[]>();
  for (const name of names) {
    const value = request.getHeader(name);
    if (value !== undefined) given.set(name, [value].flat().map(String));
  }
  return given;
}

function setHead(
  request: ClientRequest,
  host: string | undefined,
  ours: ReadonlyMap<string, string>,
  elapsed: number,
): void {
  if (host !== undefined) request.setHeader('Host', host);
  const given = readValues(request, PROPAGATED_HEADERS);
  for (const name of PROPAGATED_HEADERS) {
    const values = valuesToSend(name, given, ours, elapsed);
    if (values.length > 0) request.setHeader(name, values.length === 1 ? values[0]! : values);
    else request.removeHeader(name);
  }
}

function changeHead(
  request: UnsentRequest,
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
 * Reads some headers, by their names in lower case, from the lines of a head. `others` are the
 * other lines.
 */
function readLines(
  lines: readonly string[],
  names: ReadonlySet<string>,
): { given: Map<string, string[]>; others: string[] } {
  const given = new Map<string, string[]>();
  const others = lines.filter((line, index) => {
    const colon = index > 0 ? line.indexOf(':') : -1;
    const name = colon === -1 ? undefined : line.slice(0, colon).toLowerCase();
    if (name === undefined || !names.has(name)) return true;
    const values = given.get(name) ?? [];
    given.set(name, [...values, line.slice(colon + 1).replace(/^[ \t]+/, '')]);
    return false;
  });
  return { given, others };
}
