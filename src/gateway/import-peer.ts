import { GatewayConfigError } from '../errors.ts';

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
    const { code, message } = cause as NodeJS.ErrnoException;
    if (code !== 'ERR_MODULE_NOT_FOUND' || !message.includes(`'${name}'`)) throw cause;
    const reason = `needs the package ${name}, which is not installed beside holdfast: npm install ${name}`;
    throw new GatewayConfigError([{ path: option, reason }], { cause });
  }
}
