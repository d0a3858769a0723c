import { checkOptions, type OptionValues, usageError } from './options.ts';

/** Starts a gateway, or checks its file. */
export interface GatewayCommand {
  readonly command: 'gateway';
  readonly config: string;
  readonly check: boolean;
  readonly host: string | undefined;
  readonly port: number | undefined;
  readonly json: boolean;
}

export function parseGatewayCommand(args: readonly string[], values: OptionValues): GatewayCommand {
  checkOptions('gateway', values, ['config', 'check', 'host', 'port', 'json']);
  if (args.length > 0) throw usageError('gateway takes no argument: name its file with --config <file>');
  if (!values.config) throw usageError('which file? Say it with --config <file>');
  const { config, check = false, host, port, json = false } = values;
  if (check && (host ?? port) !== undefined)
    throw usageError('--check starts nothing: leave --host and --port out');
  return { command: 'gateway', config, check, host, port: readPort(port), json };
}

function readPort(given: string | undefined): number | undefined {
  if (given === undefined) return undefined;
  const port = Number(given);
  if (/^\d{1,5}$/.test(given) && port <= 65_535) return port;
  throw usageError('--port is a whole number from 0 to 65535');
}
