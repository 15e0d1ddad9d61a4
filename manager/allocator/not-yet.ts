/** What a service or task still lacks, as the operator reads it; it is tried again when something changes. */
export class NotYet extends Error {}
