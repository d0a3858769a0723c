import { CommandError } from './command-error.ts';

/** Loads a part of a command when it is used: it imports an optional peer, which need not be installed. */
export async function load<Module>(
  command: string,
  peer: string,
  importPart: () => Promise<Module>,
): Promise<Module> {
  try {
    return await importPart();
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    if (code !== 'ERR_MODULE_NOT_FOUND' || !message.includes(`'${peer}'`)) throw error;
    throw new CommandError(
      `${command} needs the package ${peer}, which is not installed beside holdfast: npm install ${peer}`,
      { cause: error },
    );
  }
}
