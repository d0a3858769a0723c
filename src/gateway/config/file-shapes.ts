import type { DnsName } from '../../discovery/dns-lookup.ts';
import type {
  DiscoveryFileOptions,
  GatewayFileOptions,
  RateLimitStoreFileOptions,
  RedisFileOptions,
  ServerFileOptions,
  TlsFileOptions,
} from './file-options.ts';
import { configFields, serverFields } from './option-shapes.ts';
import type { OptionPlace } from './problems.ts';
import { numberFromEnv, SERVICE_NAME, service, url } from './scalar-shapes.ts';
import { anyText, choice, flag, fromEnv, list, number, object, record, required, text } from './shape.ts';

const redis = object<RedisFileOptions>('RedisFileOptions', {
  url: required(fromEnv(url("a URL such as 'redis://127.0.0.1:6379'", 'redis', 'rediss'))),
  keyPrefix: fromEnv(text(/^[\w.:-]{1,64}$/, 'letters, digits and . _ : - (at most 64)')),
});

const port = (min: number) => numberFromEnv(number(min, 65_535, { whole: true }));

const dnsName = object<DnsName>('DnsName', {
  name: required(fromEnv(text(/^[\w-]{1,63}(?:\.[\w-]{1,63})*\.?$/, 'a name in DNS'))),
  type: choice('A', 'AAAA', 'SRV'),
  port: port(1),
  protocol: choice('http', 'https'),
});

const discovery = object<DiscoveryFileOptions>(
  'DiscoveryFileOptions',
  {
    redis,
    static: record(
      SERVICE_NAME,
      service.expected,
      list(fromEnv(url("an origin such as 'http://10.0.0.1:8001'", 'http', 'https'))),
    ),
    dns: record(SERVICE_NAME, service.expected, dnsName),
  },
  checkDiscovery,
);

function checkDiscovery(value: DiscoveryFileOptions, place: OptionPlace): void {
  if (Object.keys(value).length !== 1) place.report("must be one of 'redis', 'static' and 'dns'");
}

const tls = object<TlsFileOptions>('TlsFileOptions', {
  keyFile: required(fromEnv(anyText)),
  certFile: required(fromEnv(anyText)),
});

const server = object<ServerFileOptions>('ServerFileOptions', {
  host: fromEnv(anyText),
  port: port(0),
  tls,
  accessLog: flag,
  ...serverFields,
});

/** The options that a file may have. */
export const fileOptions = object<GatewayFileOptions>('GatewayFileOptions', {
  $schema: anyText,
  ...configFields,
  discovery,
  rateLimitStore: object<RateLimitStoreFileOptions>('RateLimitStoreFileOptions', { redis: required(redis) }),
  server,
});
