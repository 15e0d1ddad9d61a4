// How etcd is reached, and where in it the cluster lies.

export interface EtcdSettings {
  /** "http://host:port" or "https://host:port", all of one kind. */
  readonly hosts: readonly string[];
  /** Begins with "/" and does not end with it. Everything of the cluster is under it. */
  readonly prefix: string;
  /** PEM files; empty: the system's authorities, no certificate of our own. */
  readonly caFile: string;
  readonly certFile: string;
  readonly keyFile: string;
  /** Empty: no user. */
  readonly user: string;
  readonly passwordFile: string;
  /** Whether the leader discards history that no manager needs any more; it is history of the whole etcd. */
  readonly compaction: 'on' | 'off';
}
