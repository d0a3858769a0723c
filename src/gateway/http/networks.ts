import { BlockList, isIP, isIPv6 } from 'node:net';
import { shown } from '../../internal/shown.ts';

/** A set of addresses and networks. */
export class Networks {
  readonly #list = new BlockList();
  readonly #empty: boolean;

  /** @throws TypeError if one is neither an address nor a network such as `10.0.0.0/8` */
  constructor(networks: readonly string[], option: string) {
    this.#empty = networks.length === 0;
    for (const network of networks) this.#add(network, option);
  }

  has(address: string): boolean {
    if (this.#empty || isIP(address) === 0) return false;
    return this.#list.check(address, isIPv6(address) ? 'ipv6' : 'ipv4');
  }

  #add(network: string, option: string): void {
    const [address = '', bits, ...rest] = network.split('/');
    const family = isIPv6(address) ? 'ipv6' : 'ipv4';
    const most = family === 'ipv6' ? 128 : 32;
    const length = bits === undefined ? most : Number(/^\d{1,3}$/.exec(bits)?.[0] ?? Number.NaN);
    if (isIP(address) === 0 || rest.length > 0 || !(length <= most))
      throw new TypeError(`${option} has addresses and networks such as 10.0.0.0/8; got ${shown(network)}`);
    this.#list.addSubnet(address, length, family);
  }
}

/** Gives an IPv4 address as such, also where a socket of both families has it as an IPv6 address. */
export function plainAddress(address: string): string {
  return address.startsWith('::ffff:') && address.includes('.') ? address.slice(7) : address;
}
