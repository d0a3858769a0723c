import { resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { isDeepStrictEqual } from 'node:util';
import { GatewayConfigError } from '../../errors.ts';
import { Emitter } from '../../internal/emitter.ts';
import { FollowedFile, readText } from '../../internal/followed-file.ts';
import { MAX_DELAY, number, validateOptions } from '../../internal/validate.ts';
import type { GatewayConfig } from '../options.ts';
import type { GatewayFileOptions } from './file-options.ts';
import { parseGatewayFile } from './parse-gateway-file.ts';
import type { Environment } from './problems.ts';

export interface GatewayFileEvents {
  /**
   * The gateway has taken a change of the file over. Changes of the options in `ignored` take effect
   * when the process starts again.
   */
  reload: [event: { file: string; ignored: readonly string[] }];
  /** The file is gone or not allowed, and the old configuration stays. Emitted once while that lasts. */
  failure: [event: { file: string; error: Error }];
}

/** A gateway, as far as a file needs it. */
export interface ReloadableGateway {
  reload(changes: Partial<GatewayConfig>): Promise<void>;
}

export interface FollowOptions {
  /** Milliseconds between two readings of the file. Default 1,000. */
  interval?: number | undefined;
}

/** The fields that can be replaced while a gateway runs. */
const CONFIG_NAMES = [
  'routes',
  'auth',
  'cors',
  'helmet',
  'rateLimit',
  'maxRequests',
  'maxEventLoopDelay',
  'trustedProxies',
  'internalAddresses',
] as const satisfies readonly (keyof GatewayConfig)[];

/** The others: they are read when the process starts. */
const START_NAMES = [
  'discovery',
  'rateLimitStore',
  'server',
] as const satisfies readonly (keyof GatewayFileOptions)[];

/**
 * The configuration of a gateway in a file of YAML or JSON, at most 1 MiB. Needs the package yaml.
 *
 * @example
 * const file = await GatewayFile.open('gateway.yaml');
 * const gateway = await createGateway({ client, ...file.config });
 * file.on('failure', ({ error }) => console.error(error.message));
 * file.follow(gateway);
 */
export class GatewayFile extends Emitter<GatewayFileEvents> {
  readonly path: string;
  /** All options of the file, as it was opened. */
  readonly options: GatewayFileOptions;
  readonly #text: string;
  readonly #env: Environment;
  #followed: FollowedFile | undefined = undefined;

  private constructor(path: string, text: string, options: GatewayFileOptions, env: Environment) {
    super('gateway-file');
    this.path = path;
    this.options = options;
    this.#text = text;
    this.#env = env;
  }

  /**
   * Reads a file.
   *
   * @param env the variables that `${env:NAME}` stands for in marked fields; default `process.env`
   * @throws GatewayConfigError that tells all that is wrong, with file, line and reason
   */
  static async open(file: string | URL, env: Environment = process.env): Promise<GatewayFile> {
    const path = file instanceof URL ? fileURLToPath(file) : resolve(file);
    const text = await readFile(path);
    return new GatewayFile(path, text, await parseGatewayFile(text, path, env), env);
  }

  /** The options that createGateway() and reload() take. */
  get config(): GatewayConfig {
    return toConfig(this.options);
  }

  /**
   * Reads the file again every `interval`, whether it is edited in place, replaced, or mounted from a
   * Kubernetes ConfigMap, and has the gateway take changes over once two readings in a row have found the
   * same text. A file that is gone or not allowed changes nothing. It does not hold the process open.
   * Calling it again follows for the gateway given last.
   *
   * @throws TypeError or RangeError that names the option that is not allowed
   */
  follow(gateway: ReloadableGateway, options: FollowOptions = {}): void {
    validateOptions('GatewayFile.follow', options, { interval: number(1, MAX_DELAY) });
    this.close();
    const onText = (text: string) => this.#apply(text, gateway);
    this.#followed = new FollowedFile(this.path, onText, { accepted: this.#text, settled: true });
    this.#followed.follow(options.interval ?? 1_000, (error) => {
      this.emit('failure', { file: this.path, error });
    });
  }

  /** Stops reading the file. A second call does nothing. */
  close(): void {
    this.#followed?.close();
    this.#followed = undefined;
  }

  async #apply(text: string, gateway: ReloadableGateway): Promise<void> {
    const options = await parseGatewayFile(text, this.path, this.#env);
    await gateway.reload(toConfig(options));
    const ignored = START_NAMES.filter((name) => !isDeepStrictEqual(options[name], this.options[name]));
    this.emit('reload', { file: this.path, ignored });
  }
}

/** Gives what the file leaves out as undefined, so that a reload takes it away. */
function toConfig(options: GatewayFileOptions): GatewayConfig {
  const entries = CONFIG_NAMES.map((name) => [name, options[name]]);
  // The shape has `routes` as a field that is required.
  return Object.fromEntries(entries) as GatewayConfig;
}

async function readFile(path: string): Promise<string> {
  try {
    return await readText(path);
  } catch (cause) {
    throw new GatewayConfigError([{ path: '', reason: (cause as Error).message }], { file: path, cause });
  }
}
