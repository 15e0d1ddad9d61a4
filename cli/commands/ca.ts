// `tsswarm ca`: the root certificate of the cluster, and another one in its place.

import { defaultClusterSpec } from '../../core/defaults.ts';
import { invalidField, messageOf, SwarmError } from '../../core/errors.ts';
import { validateClusterSpec } from '../../core/validate-cluster.ts';
import { defineCommand } from '../command.ts';
import type { Connection } from '../connection.ts';
import { authorityClusterFlags, clusterChanges, readFlagFile } from '../flags/cluster-flags.ts';
import { switchFlag, textFlag } from '../flags/flag.ts';
import type { Io } from '../io.ts';
import { askUntil } from '../progress/ask.ts';
import { formatRotation } from '../progress/rotation.ts';
import { Screen, silentScreen } from '../progress/screen.ts';
import { UsageError } from '../usage-error.ts';

const NEEDS_ROTATE = ['ca-cert', 'ca-key', 'cert-expiry', 'external-ca', 'detach'];

export const command = defineCommand({
  usage: '[OPTIONS]',
  args: { min: 0, max: 0 },
  flags: {
    ...authorityClusterFlags,
    rotate: switchFlag(
      'Rotate the swarm CA - if no certificate or key are provided, new ones will be generated',
    ),
    'ca-cert': textFlag('File with the PEM-formatted root CA certificate to use for the new cluster'),
    'ca-key': textFlag('File with the PEM-formatted root CA key to use for the new cluster'),
    detach: switchFlag('Exit immediately instead of waiting for the root rotation to converge', {
      shorthand: 'd',
    }),
    quiet: switchFlag('Suppress progress output', { shorthand: 'q' }),
  },
  async run({ flags, given, io, connection }) {
    if (!flags.rotate) {
      const idle = NEEDS_ROTATE.find((name) => given.has(name));
      if (idle !== undefined) throw new UsageError(`--${idle} requires --rotate`);
      const { certificate } = await (await connection.control()).getAuthority({});
      await io.out(`${certificate.trim()}\n`);
      return 0;
    }
    const said = clusterChanges(flags, { workdir: io.workdir, nowMs: io.nowMs() });
    validateClusterSpec({ ...defaultClusterSpec, ...said });
    const { certificate } = await (await connection.control()).rotateAuthority({
      ...(await readAuthority(flags['ca-cert'], flags['ca-key'], io)),
      externalCas: said.externalCas ?? [],
      certificateLifeMs: said.certificateLifeMs ?? 0,
    });
    return flags.detach ? 0 : awaitRotation(certificate, flags.quiet ?? false, io, connection);
  },
});

/** Throws `invalid-argument` for what cannot be a root, before anything is sent. */
async function readAuthority(certificateFile: string | undefined, keyFile: string | undefined, io: Io) {
  if (certificateFile === undefined) {
    if (keyFile !== undefined)
      throw new UsageError('--ca-key requires --ca-cert, the certificate of the key');
    return { certificate: '', key: '' };
  }
  const certificate = readFlagFile('ca-cert', certificateFile, io.workdir);
  const key = keyFile === undefined ? '' : readFlagFile('ca-key', keyFile, io.workdir);
  const { requireRoot } = await import('../../rpc/certificates.ts');
  try {
    requireRoot({ certificatePem: certificate, ...(keyFile !== undefined && { keyPem: key }) }, io.nowMs());
  } catch (error) {
    throw invalidField(keyFile === undefined ? 'ca-cert' : 'ca-cert, ca-key', messageOf(error));
  }
  return { certificate, key };
}

/** Shows how far the nodes are until all of them have come over; an interrupt leaves them to it. */
async function awaitRotation(
  certificate: string,
  isQuiet: boolean,
  io: Io,
  connection: Connection,
): Promise<number> {
  const screen = isQuiet ? silentScreen() : new Screen(io);
  const signal = io.catchInterrupt();
  const wanted = certificate.trim();
  const current = await askUntil({
    connection,
    io,
    signal,
    ask: async (control) => {
      const { certificate: now, rotation } = await control.getAuthority({});
      if (rotation === undefined) return now.trim();
      if (rotation.nextCertificate.trim() !== wanted) return rotation.nextCertificate.trim();
      await screen.draw(formatRotation(rotation));
      return undefined;
    },
  });
  if (current === undefined) {
    io.err('\nOperation continuing in background.\nUse `tsswarm info` to see whether it is over.\n');
    return 0;
  }
  if (current !== wanted)
    throw new SwarmError('failed-precondition', 'another rotation has taken the place of this one', {
      hint: 'Use "tsswarm ca" to see which root is in force.',
    });
  await io.out(`${wanted}\n`);
  return 0;
}
