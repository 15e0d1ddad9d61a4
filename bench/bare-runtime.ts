// The peer of the engine's containers: the runtime called by hand for the specification of one of them.

import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { CpuMeter } from './cpu-meter.ts';

const BARE_CGROUP = 'tsswarm/bare';

const SCRIPT = `
set -e
runtime=$1 directory=$2 count=$3
for i in $(seq $count); do
  "$runtime" --root "$directory/state" run --detach --bundle "$directory/$i" bare-$i </dev/null >/dev/null
done
for i in $(seq $count); do
  "$runtime" --root "$directory/state" kill bare-$i KILL
  "$runtime" --root "$directory/state" delete --force bare-$i
done`;

interface Spec {
  root: { path: string };
  linux: { cgroupsPath: string };
  annotations?: Record<string, string>;
}

/**
 * Microseconds of processor time for each container that is started, one after the other, killed and deleted. It sees the
 * mounts that containerd sees: the root file system of the bundle, and what crun must not see of the cgroups.
 */
export function measureBare(
  { runtime, bundle, containerdPid }: { runtime: string; bundle: string; containerdPid: number },
  directory: string,
  count: number,
): number {
  for (let number = 1; number <= count; number++) {
    const spec = JSON.parse(readFileSync(path.join(bundle, 'config.json'), 'utf8')) as Spec;
    spec.root.path = path.join(bundle, 'rootfs');
    spec.linux.cgroupsPath = `/${BARE_CGROUP}/${number}`;
    // A filter that the engine has compiled before is no part of it.
    delete spec.annotations?.['run.oci.seccomp_bpf_data'];
    const own = path.join(directory, String(number));
    mkdirSync(own, { recursive: true });
    writeFileSync(path.join(own, 'config.json'), JSON.stringify(spec));
  }
  using meter = new CpuMeter(path.basename(runtime), BARE_CGROUP);
  const before = meter.micros;
  const inGroup = 'echo $$ > "$0/cgroup.procs"; exec nsenter --mount="$5" sh -c "$1" sh "$2" "$3" "$4"';
  const mounts = `/proc/${containerdPid}/ns/mnt`;
  execFileSync('sh', ['-c', inGroup, meter.directory, SCRIPT, runtime, directory, String(count), mounts], {
    stdio: ['ignore', 'ignore', 'inherit'],
  });
  if (existsSync(path.join(directory, 'state', 'bare-1'))) throw new Error('a container was left behind');
  return (meter.micros - before) / count;
}
