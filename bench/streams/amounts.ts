export const GIB = 1_073_741_824;
export const MIB = 1_048_576;

/** Bytes that are streamed. */
export const STREAMED = GIB;
/** Calls that are cancelled, and how many of them before the memory is looked at the first time. */
export const CANCELLED = 10_000;
export const FIRST_CANCELLED = 2_000;
export const AT_ONCE = 50;

/**
 * Bounds for the package: bytes held while it streams, and bytes that are left of cancelled calls.
 */
export const MAX_WHILE_STREAMING = 16 * MIB;
export const MAX_LEFT = 2 * MIB;

/** Milliseconds in which a client has to be done with one of them. */
export const MAX_TIME = 120_000;
