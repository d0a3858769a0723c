import type { Writable } from 'node:stream';

/** A stream that may be a terminal. */
export type OutputStream = Writable & {
  isTTY?: boolean | undefined;
  columns?: number | undefined;
  rows?: number | undefined;
};

/** The environment and the streams of a command. */
export interface CommandIo {
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly stdout: OutputStream;
  readonly stderr: Writable;
  /** Gives the signal that ends a command which runs until it is interrupted. */
  interruption(): AbortSignal;
  /** Gives the signal that tells a server to end, when it is interrupted or terminated. */
  termination(): AbortSignal;
}
