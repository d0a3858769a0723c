import { describeMissing } from '../internal/missing-package.ts';
import { CommandError } from './command-error.ts';

/** Loads a part of a command when it is used: it imports an optional peer, which need not be installed. */
export async function load<Module>(
  command: string,
  peer: string,
  importPart: () => Promise<Module>,
): Promise<Module> {
  try {
    return await importPart();
  } catch (cause) {
    const reason = describeMissing(cause, peer);
    if (reason === undefined) throw cause;
    throw new CommandError(`${command} ${reason}`, { cause });
  }
}
