// What both ends of a stream into a task keep to.

/**
 * Bytes for a task that may be on their way or waiting for it. Beyond that the sender waits to be told that some were taken:
 * signals and window sizes on the same stream never stand behind data that nobody reads.
 */
export const REACH_WINDOW_BYTES = 256 * 1024;

/** Larger pieces of data are cut to this. */
export const REACH_CHUNK_BYTES = 32 * 1024;
