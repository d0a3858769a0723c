import { nearestName } from './near-name.ts';
import { shown } from './shown.ts';
import { anObject } from './validate.ts';

/**
 * Checks options for Node or undici, which ignore unknown ones: a name that is nearly one of theirs is
 * misspelt. Others pass, since a newer version may know them.
 */
export function checkExternalOptions(value: unknown, option: string, names: ReadonlySet<string>): void {
  anObject(value, option);
  for (const name of Object.keys(value as object)) {
    if (names.has(name)) continue;
    const near = nearestName(name, names);
    if (near !== undefined) throw new TypeError(`${option} has no ${shown(name)}: did you mean '${near}'?`);
  }
}

/** The options of `tls.connect()`, of `net.connect()` and of undici's connector. */
export const CONNECT_OPTIONS: ReadonlySet<string> = new Set([
  'ALPNCallback',
  'ALPNProtocols',
  'SNICallback',
  'allowH2',
  'allowHalfOpen',
  'allowPartialTrustChain',
  'autoSelectFamily',
  'autoSelectFamilyAttemptTimeout',
  'blockList',
  'ca',
  'cert',
  'certificateCompression',
  'checkServerIdentity',
  'ciphers',
  'clientCertEngine',
  'crl',
  'dhparam',
  'ecdhCurve',
  'enableTrace',
  'family',
  'fd',
  'handle',
  'highWaterMark',
  'hints',
  'honorCipherOrder',
  'host',
  'hostname',
  'isServer',
  'keepAlive',
  'keepAliveInitialDelay',
  'key',
  'localAddress',
  'localPort',
  'lookup',
  'maxCachedSessions',
  'maxVersion',
  'minDHSize',
  'minVersion',
  'noDelay',
  'objectMode',
  'onread',
  'passphrase',
  'path',
  'pauseOnConnect',
  'pfx',
  'port',
  'preferH2',
  'privateKeyEngine',
  'privateKeyIdentifier',
  'pskCallback',
  'readable',
  'rejectUnauthorized',
  'requestCert',
  'requestOCSP',
  'secureContext',
  'secureOptions',
  'secureProtocol',
  'server',
  'servername',
  'session',
  'sessionIdContext',
  'sessionTimeout',
  'sigalgs',
  'signal',
  'socket',
  'socketPath',
  'ticketKeys',
  'timeout',
  'typeOfService',
  'useH2c',
  'writable',
]);
