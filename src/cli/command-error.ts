/** Why a command cannot be carried out, for whoever typed it. */
export class CommandError extends Error {
  /** 1 where it failed, 2 where it was not understood. */
  readonly exitCode: 1 | 2;

  constructor(message: string, { exitCode = 1, ...options }: ErrorOptions & { exitCode?: 1 | 2 } = {}) {
    super(message, options);
    this.exitCode = exitCode;
  }
}
