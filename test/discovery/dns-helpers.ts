import type { DnsAddressRecord, DnsResolver, DnsServiceRecord } from '../../src/discovery/dns-lookup.ts';

type RecordType = 'A' | 'AAAA' | 'SRV';
type Answer = readonly unknown[] | Error | Promise<readonly unknown[]>;

/** Builds the error that Node's resolver rejects with. */
export function dnsError(code: string): Error {
  return Object.assign(new Error(`query ${code}`), { code });
}

/** A resolver that says what a test tells it to. */
export class FakeDns implements DnsResolver {
  /** The queries that the resolver received, such as `A users.test`. */
  readonly asked: string[] = [];
  readonly #answers = new Map<string, Answer>();
  readonly #names = new Set<string>();

  set(type: RecordType, name: string, answer: Answer): void {
    this.#answers.set(`${type} ${name}`, answer);
    this.#names.add(name);
  }

  /** Addresses with one TTL, in seconds. */
  addresses(name: string, addresses: readonly string[], ttl = 30): void {
    const type = addresses[0]?.includes(':') ? 'AAAA' : 'A';
    this.set(
      type,
      name,
      addresses.map((address) => ({ address, ttl })),
    );
  }

  remove(type: RecordType, name: string): void {
    this.#answers.delete(`${type} ${name}`);
  }

  /** Of the name: NXDOMAIN from now on. */
  forget(name: string): void {
    for (const type of ['A', 'AAAA', 'SRV'] as const) this.remove(type, name);
    this.#names.delete(name);
  }

  resolve4(name: string): Promise<DnsAddressRecord[]> {
    return this.#answer('A', name);
  }

  resolve6(name: string): Promise<DnsAddressRecord[]> {
    return this.#answer('AAAA', name);
  }

  resolveSrv(name: string): Promise<DnsServiceRecord[]> {
    return this.#answer('SRV', name);
  }

  async #answer<R>(type: RecordType, name: string): Promise<R[]> {
    this.asked.push(`${type} ${name}`);
    const answer = await this.#answers.get(`${type} ${name}`);
    if (answer === undefined) throw dnsError(this.#names.has(name) ? 'ENODATA' : 'ENOTFOUND');
    if (answer instanceof Error) throw answer;
    return answer.slice() as R[];
  }
}

export function srv(
  name: string,
  port: number,
  { priority = 0, weight = 1 }: { priority?: number; weight?: number } = {},
): DnsServiceRecord {
  return { name, port, priority, weight };
}
