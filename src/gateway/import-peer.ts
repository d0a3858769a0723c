import { GatewayConfigError } from '../errors.ts';
import { describeMissing } from '../internal/missing-package.ts';

/**
 * Imports an optional peer when an option needs it.
 *
 * @throws GatewayConfigError that tells what to install
 */
export async function importPeer<Module>(
  option: string,
  name: string,
  load: () => Promise<Module>,
): Promise<Module> {
  try {
    return await load();
  } catch (cause) {
    const reason = describeMissing(cause, name);
    if (reason === undefined) throw cause;
    throw new GatewayConfigError([{ path: option, reason }], { cause });
  }
}
