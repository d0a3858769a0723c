import type { JSONWebKeySet } from 'jose';
import { KeySet, type KeySource } from './key-set.ts';
import { RemoteKeys } from './remote-keys.ts';

/** Checks an option that stands for the keys of an issuer: their address, or the keys. */
export function checkKeys(value: unknown, option: string): void {
  if (typeof value !== 'string') {
    void KeySet.parse(value, option);
  } else if (!isJwksAddress(value)) {
    throw new TypeError(`${option} must be a URL of https, or of http on loopback, without credentials`);
  }
}

/** Makes the source of the keys of one issuer. */
export function toKeySource(keys: string | JSONWebKeySet): KeySource {
  return typeof keys === 'string' ? new RemoteKeys(keys) : KeySet.parse(keys, 'the keys');
}

/** Whether keys may be fetched from an address: nobody on the way may change them. */
function isJwksAddress(address: string): boolean {
  const url = URL.canParse(address) ? new URL(address) : undefined;
  if (url === undefined || url.username !== '' || url.password !== '') return false;
  return url.protocol === 'https:' || (url.protocol === 'http:' && isLoopback(url.hostname));
}

function isLoopback(host: string): boolean {
  return host === 'localhost' || host === '[::1]' || /^127\.\d+\.\d+\.\d+$/.test(host);
}
