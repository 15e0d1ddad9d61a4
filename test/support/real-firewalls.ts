// Debian's own firewalls in the network namespace of a test host, with files of their own: what this machine has is left alone.

import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { promisify } from 'node:util';
import { eventually } from './eventually.ts';

const run = promisify(execFile);

export interface RealFirewall extends AsyncDisposable {
  /** Its rules are loaded anew, as by an operator. */
  reload(): Promise<void>;
  /** From now on nothing comes in for the overlay. */
  closeDataPath?(): Promise<void>;
  /** For daemons on this host, so that they find it. */
  readonly environment: Readonly<Record<string, string>>;
}

/** Why there is none here, or undefined. */
export function whyNoFirewall(program: string): string | undefined {
  return existsSync(program) ? undefined : `needs ${program}`;
}

/** Denies what comes in and what is routed, as a careful operator has it; VXLAN and managers are let in. */
export async function startUfw(netns: string): Promise<RealFirewall> {
  const directory = await mkdtemp(path.join(os.tmpdir(), 'tsw-ufw-'));
  await run('cp', ['-a', '/etc/ufw', path.join(directory, 'ufw')]);
  await run('cp', ['-a', '/etc/default/ufw', path.join(directory, 'default')]);
  // Its files are found by their places only.
  const ufw = (line: string) =>
    run('ip', [
      'netns',
      'exec',
      netns,
      'unshare',
      '-m',
      'sh',
      '-c',
      `mount --bind ${directory}/ufw /etc/ufw && mount --bind ${directory}/default /etc/default/ufw && ${line}`,
    ]);
  await ufw(
    'ufw default deny incoming && ufw default deny routed && ufw allow 4789/udp && ufw allow 2377/tcp && ufw --force enable',
  );
  return {
    environment: {},
    reload: async () => {
      await ufw('ufw reload');
    },
    closeDataPath: async () => {
      await ufw('ufw delete allow 4789/udp');
    },
    async [Symbol.asyncDispose]() {
      await ufw('ufw --force disable').catch(() => {});
      await rm(directory, { recursive: true, force: true });
    },
  };
}

/** Docker drops what is forwarded and is not its own; it has a chain for the rules of others. */
export async function startDocker(netns: string): Promise<RealFirewall> {
  const directory = await mkdtemp(path.join(os.tmpdir(), 'tsw-dockerd-'));
  const flags = [
    `--data-root=${directory}/data`,
    `--exec-root=${directory}/exec`,
    `--pidfile=${directory}/pid`,
    `--host=unix://${directory}/docker.sock`,
  ];
  // `ip netns exec` would hide the cgroups.
  const child = spawn('nsenter', [`--net=/run/netns/${netns}`, 'dockerd', ...flags], { stdio: 'ignore' });
  const iptables = (...args: string[]) => run('ip', ['netns', 'exec', netns, 'iptables', '-w', ...args]);
  await eventually(() => existsSync(path.join(directory, 'docker.sock')), 30_000);
  await eventually(() => iptables('-S', 'DOCKER-USER'), 30_000);
  return {
    environment: {},
    // As an operator's script does that owns the chain.
    reload: async () => {
      await iptables('-F', 'DOCKER-USER');
    },
    async [Symbol.asyncDispose]() {
      const ended = new Promise((resolve) => child.once('exit', resolve));
      child.kill('SIGTERM');
      await ended;
      await rm(directory, { recursive: true, force: true });
    },
  };
}

/** With a message bus of its own. VXLAN and managers are let in. */
export async function startFirewalld(netns: string): Promise<RealFirewall> {
  const directory = await mkdtemp(path.join(os.tmpdir(), 'tsw-firewalld-'));
  const address = `unix:path=${directory}/bus`;
  const configuration = path.join(directory, 'bus.conf');
  await writeFile(
    configuration,
    `<busconfig><type>system</type><listen>${address}</listen><policy context="default"><allow send_destination="*"/><allow receive_sender="*"/><allow own="*"/><allow user="*"/></policy></busconfig>`,
  );
  const environment = { DBUS_SYSTEM_BUS_ADDRESS: address };
  const children: ChildProcess[] = [];
  const start = (command: string, ...args: string[]) => {
    const child = spawn(command, args, { env: { ...process.env, ...environment }, stdio: 'ignore' });
    children.push(child);
  };
  const control = (...args: string[]) =>
    run('ip', ['netns', 'exec', netns, 'firewall-cmd', ...args], { env: { ...process.env, ...environment } });
  start('dbus-daemon', `--config-file=${configuration}`, '--nofork', '--nopidfile');
  await eventually(() => existsSync(path.join(directory, 'bus')));
  start('ip', 'netns', 'exec', netns, 'firewalld', '--nofork', '--nopid', `--system-config=${directory}/etc`);
  await eventually(() => control('--state'), 30_000);
  for (const port of ['4789/udp', '2377/tcp']) await control(`--add-port=${port}`);
  return {
    environment,
    reload: async () => {
      await control('--reload');
      for (const port of ['4789/udp', '2377/tcp']) await control(`--add-port=${port}`);
    },
    async [Symbol.asyncDispose]() {
      for (const child of children.reverse()) {
        if (child.exitCode !== null || child.signalCode !== null) continue;
        const ended = new Promise((resolve) => child.once('exit', resolve));
        child.kill('SIGTERM');
        await ended;
      }
      await rm(directory, { recursive: true, force: true });
    },
  };
}
