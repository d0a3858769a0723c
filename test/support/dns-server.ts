import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { isIPv6 } from 'node:net';
import { onTestFinished, type TestContext } from 'vitest';

/** Of a TTL in seconds, as DNS has it. */
export type DnsRecord =
  | { type: 'A' | 'AAAA'; address: string; ttl: number }
  | { type: 'SRV'; priority: number; weight: number; port: number; target: string; ttl: number };

/** A code to answer with, or no answer at all. */
export type DnsRefusal = 'FORMERR' | 'SERVFAIL' | 'NXDOMAIN' | 'REFUSED' | 'silence';

export interface DnsServer {
  /** As `setServers()` takes it. */
  readonly address: string;
  /** The questions that came in, such as `A users.test`. */
  readonly questions: readonly string[];
  /** Sets the answer for a name from now on. A name without one gets NXDOMAIN. */
  set(name: string, answer: DnsRecord[] | DnsRefusal): void;
  /** Resolves when it has been asked so many questions in all. */
  asked(count: number): Promise<void>;
  close(): Promise<void>;
}

const TYPES: Readonly<Record<number, string>> = { 1: 'A', 28: 'AAAA', 33: 'SRV' };
const CODES = { NOERROR: 0, FORMERR: 1, SERVFAIL: 2, NXDOMAIN: 3, REFUSED: 5 };

/**
 * A DNS server on loopback, over UDP (RFC 1035, RFC 2782).
 *
 * @param atEnd that of the context of a test beside which others run
 */
export async function startDnsServer(
  atEnd: TestContext['onTestFinished'] = onTestFinished,
): Promise<DnsServer> {
  const zone = new Map<string, DnsRecord[] | DnsRefusal>();
  const questions: string[] = [];
  const socket = createSocket('udp4');
  socket.on('message', (query, from) => {
    const { name, type, end } = questionOf(query);
    const answer = zone.get(name) ?? 'NXDOMAIN';
    questions.push(`${type} ${name}`);
    socket.emit('question');
    if (answer === 'silence') return;
    const records = typeof answer === 'string' ? [] : answer.filter((record) => record.type === type);
    const header = words(
      0,
      0x8580 | CODES[typeof answer === 'string' ? answer : 'NOERROR'],
      1,
      records.length,
      0,
      0,
    );
    query.copy(header, 0, 0, 2);
    socket.send(
      Buffer.concat([header, query.subarray(12, end), ...records.map(encode)]),
      from.port,
      from.address,
    );
  });
  socket.bind(0, '127.0.0.1');
  await once(socket, 'listening');
  let closed = false;
  const close = async () => {
    if (closed) return;
    closed = true;
    socket.close();
    await once(socket, 'close');
  };
  atEnd(close);
  return {
    address: `127.0.0.1:${socket.address().port}`,
    questions,
    set: (name, answer) => void zone.set(name, answer),
    async asked(count) {
      while (questions.length < count) await once(socket, 'question');
    },
    close,
  };
}

function questionOf(query: Buffer): { name: string; type: string; end: number } {
  const labels: string[] = [];
  let at = 12;
  for (let length = query[at]!; length > 0; length = query[at]!) {
    labels.push(query.toString('latin1', at + 1, at + 1 + length));
    at += 1 + length;
  }
  return { name: labels.join('.'), type: TYPES[query.readUInt16BE(at + 1)] ?? 'other', end: at + 5 };
}

/** A record of the name in question, to which it points back. */
function encode(record: DnsRecord): Buffer {
  const type = Number(Object.keys(TYPES).find((code) => TYPES[Number(code)] === record.type));
  const data =
    record.type === 'SRV'
      ? Buffer.concat([words(record.priority, record.weight, record.port), encodeName(record.target)])
      : encodeAddress(record.address);
  return Buffer.concat([words(0xc00c, type, 1, record.ttl >>> 16, record.ttl & 0xffff, data.length), data]);
}

function encodeName(name: string): Buffer {
  const labels = name.split('.').filter((label) => label !== '');
  return Buffer.concat([
    ...labels.map((label) => Buffer.concat([Buffer.of(label.length), Buffer.from(label, 'latin1')])),
    Buffer.of(0),
  ]);
}

function encodeAddress(address: string): Buffer {
  if (!isIPv6(address)) return Buffer.from(address.split('.').map(Number));
  const [head, tail] = address.split('::').map((part) => part.split(':').filter((group) => group !== ''));
  const zeros = Array.from({ length: 8 - head!.length - (tail?.length ?? 0) }, () => '0');
  return words(...[...head!, ...zeros, ...(tail ?? [])].map((group) => Number.parseInt(group, 16)));
}

/** 16 bits each, as they travel. */
function words(...values: number[]): Buffer {
  return Buffer.from(values.flatMap((value) => [value >>> 8, value & 0xff]));
}
