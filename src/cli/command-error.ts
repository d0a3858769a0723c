/** Tells the user why a command failed, or was not understood. */
export class CommandError extends Error {
  /** 1 if the command failed, 2 if it was not understood. */
  readonly exitCode: 1 | 2;

  constructor(
    message: string,
    { exitCode = 1, ...options }: ErrorOptions & { exitCode?: 1 | 2 | undefined } = {},
  ) {
    super(message, options);
    this.exitCode = exitCode;
  }
}
