// What a container asks for and not every machine has: found, or refused with the option and the node in the message.

import { closeSync, openSync, readSync } from 'node:fs';
import path from 'node:path';
import { SwarmError } from '../../../core/errors.ts';
import { isKernelFrom } from '../../../core/seccomp-profile.ts';
import { type ContainerConfig, HOST_NETWORK } from '../engine.ts';
import { checkTarget } from '../logs/line-sink.ts';
import { type Machine, OWN_USERS_KERNEL } from '../machine.ts';
import { findExecutable, type Runtime } from '../runtime/runtime.ts';

/** Throws `failed-precondition`. */
export function checkDemands(config: ContainerConfig, machine: Machine): void {
  const { security, limits } = config;
  const refuse = (option: string, what: string, hint?: string) => {
    const message = `${option}: node ${machine.hostname} ${what}`;
    throw new SwarmError('failed-precondition', message, hint === undefined ? {} : { hint });
  };
  checkTarget(config.logs.target, machine.hostname);
  const appArmor = security?.appArmor ?? '';
  if (appArmor !== '' && appArmor !== 'unconfined' && !machine.hasAppArmor)
    refuse(`security-opt apparmor=${appArmor}`, 'has no AppArmor in its kernel');
  const label = security?.seLinux;
  if (label !== undefined && !label.disabled && !machine.hasSeLinux)
    refuse('security-opt label', 'has no SELinux in its kernel', 'Only label=disable works there.');
  const beyond = config.ulimits.find(({ name, hard }) => isBeyond(machine, name, hard));
  if (beyond !== undefined)
    refuse(
      `ulimit ${beyond.name}=${beyond.hard}`,
      `cannot raise the limit above ${machine.hardLimits[beyond.name]}`,
      'Its daemon lacks CAP_SYS_RESOURCE.',
    );
  if (config.oomScoreAdj < 0 && !machine.hasSysResource)
    refuse(
      `oom-score-adj ${config.oomScoreAdj}`,
      'cannot shield a container from the OOM killer',
      'Its daemon lacks CAP_SYS_RESOURCE.',
    );
  if (limits.swapBytes !== undefined && !machine.hasSwapAccounting)
    refuse('memory-swap', 'does not account swap', 'Boot its kernel with swapaccount=1.');
  if (limits.memorySwappiness !== undefined && machine.cgroupVersion === '2')
    refuse('memory-swappiness', 'has cgroup v2, which has no swappiness of its own for a container');
  if (limits.blkioWeight > 0 && !machine.hasBlockWeight)
    refuse('blkio-weight', 'has no scheduler of block devices that knows weights');
}

/** Of a container with users of its own. Throws `failed-precondition`. */
export function checkUserDemands(config: ContainerConfig, { hostname, kernel }: Machine): void {
  const refuse = (what: string) => {
    throw new SwarmError('failed-precondition', `userns: on node ${hostname} ${what}`, {
      hint: 'With --userns host the container has the users of the node.',
    });
  };
  if (!isKernelFrom(kernel, OWN_USERS_KERNEL))
    refuse(`the kernel is ${kernel}: users of their own need ${OWN_USERS_KERNEL}`);
  const conflicts: readonly [string, boolean][] = [
    ['is privileged', config.privileged],
    ['has the processes of the node (pid=host)', config.pidMode === 'host'],
    ['is in the network host', config.network?.namespacePath === HOST_NETWORK],
  ];
  for (const [what, applies] of conflicts)
    if (applies) refuse(`containers have users of their own, which does not go with one that ${what}`);
}

function isBeyond({ hasSysResource, hardLimits }: Machine, name: string, hard: number): boolean {
  const most = hardLimits[name];
  return !hasSysResource && most !== undefined && (hard < 0 || hard > most);
}

// Each takes "--" and the command. Statically linked ones only: a container has libraries of its own, or none.
const INITS: readonly string[] = ['docker-init', 'catatonit', 'tini-static', 'tini'];
const HEADER_BYTES = 64;
const PROGRAM_INTERPRETER = 3;

/** The program for `init`. */
export function findInit(hostname: string): string {
  const found = INITS.map(findExecutable).find((file) => file !== undefined && isStatic(file));
  if (found !== undefined) return found;
  throw new SwarmError('failed-precondition', `init: node ${hostname} has no statically linked init`, {
    hint: 'Install the package tini or catatonit on it.',
  });
}

/** No program header of the ELF file names an interpreter. */
function isStatic(file: string): boolean {
  const fd = openSync(file, 'r');
  try {
    const header = Buffer.alloc(HEADER_BYTES);
    readSync(fd, header, 0, header.length, 0);
    if (header.toString('latin1', 1, 4) !== 'ELF') return false;
    const [offset, size, count] = [
      Number(header.readBigUInt64LE(32)),
      header.readUInt16LE(54),
      header.readUInt16LE(56),
    ];
    const table = Buffer.alloc(size * count);
    readSync(fd, table, 0, table.length, offset);
    return Array.from({ length: count }, (_, index) => table.readUInt32LE(index * size)).every(
      (type) => type !== PROGRAM_INTERPRETER,
    );
  } finally {
    closeSync(fd);
  }
}

/** The OCI runtime of a name; undefined for the engine's own. */
export function runtimePath(name: string, own: Runtime, hostname: string): string | undefined {
  if (name === '' || path.basename(own.path) === name) return undefined;
  // crun is used wherever it works: here it does not.
  const found = name === 'crun' ? undefined : findExecutable(name);
  if (found !== undefined) return found;
  throw new SwarmError('failed-precondition', `runtime: node ${hostname} cannot use ${name}`, {
    hint: `It uses ${own.description}.`,
  });
}
