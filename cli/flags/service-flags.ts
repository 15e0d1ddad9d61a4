// The flags of `service create` and `service update`: one table each. Adding a flag: here, then `service-spec.ts`.

import {
  DEFAULT_STOP_GRACE_PERIOD_MS,
  defaultRestartPolicy,
  defaultUpdateConfig,
} from '../../core/defaults.ts';
import { parseGenericRequest } from '../../core/generic-resource.ts';
import { MODE_NAMES } from '../../core/service-mode.ts';
import { containerScalarFlags, createContainerFlags, updateContainerFlags } from './container-flags.ts';
import { FILE_SYNTAX, parseFileReference } from './files.ts';
import {
  bytesFlag,
  countFlag,
  cpusFlag,
  durationFlag,
  type FlagOptions,
  listFlag,
  ratioFlag,
  switchFlag,
  textFlag,
  valueFlag,
  valuesFlag,
} from './flag.ts';
import { parseMount } from './mounts.ts';
import { parseNetworkAttachment } from './network-attachment.ts';
import { parsePublish, parseTargetPort } from './ports.ts';
import { oneOf } from './units.ts';
import { parseLabel, splitKeyValue, splitShellWords } from './words.ts';

const seconds = (ms: number) => ({ defaultText: `${ms / 1000}s` });
const shown = (value: string | number): FlagOptions => ({ defaultText: String(value) });

function choiceFlag<const T extends string>(help: string, choices: readonly T[], options: FlagOptions = {}) {
  return valueFlag('string', oneOf(...choices), `${help} ("${choices.join('", "')}")`, {
    ...options,
    choices,
  });
}

function parseLogOption(text: string): readonly [string, string] {
  const { key, value } = splitKeyValue(text);
  if (key === '' || value === undefined) throw new Error('must be NAME=VALUE');
  return [key, value];
}

/** Keeps a default for help only where leaving the flag out means the default: on create. */
type Initial = (options: FlagOptions) => FlagOptions;

function containerFlags(initial: Initial) {
  return {
    replicas: countFlag('Number of tasks; of a job, that have to complete', initial(shown(1))),
    'max-concurrent': countFlag(
      'Number of job tasks to run concurrently (0 = all)',
      initial({ defaultText: 'equal to --replicas' }),
    ),
    'placement-strategy': choiceFlag(
      'How nodes are chosen that may have a task',
      ['spread', 'binpack'],
      initial(shown('spread')),
    ),
    rebalance: switchFlag(
      'Move tasks to nodes that come later or again, as many at once as an update replaces',
    ),
    'replicas-max-per-node': countFlag('Maximum number of tasks per node (0 = unlimited)', initial(shown(0))),
    entrypoint: valueFlag('command', splitShellWords, 'Overwrite the default ENTRYPOINT of the image'),
    workdir: textFlag('Working directory inside the container', { shorthand: 'w' }),
    user: textFlag('Username or UID (format: <name|uid>[:<group|gid>])', { shorthand: 'u' }),
    hostname: textFlag('Container hostname'),
    'reserve-cpu': cpusFlag('Reserve CPUs'),
    'reserve-memory': bytesFlag('Reserve Memory'),
    'limit-cpu': cpusFlag('Limit CPUs'),
    'limit-memory': bytesFlag('Limit Memory'),
    'limit-pids': countFlag('Limit maximum number of processes (0 = unlimited)', initial(shown(0))),
    'stop-signal': textFlag('Signal to stop the container'),
    'stop-grace-period': durationFlag(
      'Time to wait before force killing a container',
      initial(seconds(DEFAULT_STOP_GRACE_PERIOD_MS)),
    ),
    'read-only': switchFlag("Mount the container's root filesystem as read only"),
    tty: switchFlag('Allocate a pseudo-TTY', { shorthand: 't' }),
    interactive: switchFlag('Keep STDIN open even if not attached', { shorthand: 'i' }),
  };
}

function healthFlags() {
  return {
    'health-cmd': textFlag('Command to run to check health'),
    'health-http': textFlag('Port and path of the container to request instead ("8080/healthz")'),
    'health-tcp': textFlag('Port of the container to connect to instead'),
    'health-interval': durationFlag('Time between running the check'),
    'health-timeout': durationFlag('Maximum time to allow one check to run'),
    'health-retries': countFlag('Consecutive failures needed to report unhealthy'),
    'health-start-period': durationFlag('Start period for the container, in which failures do not count'),
    'health-start-interval': durationFlag('Time between running the check during the start period'),
    'no-healthcheck': switchFlag('Disable any container-specified HEALTHCHECK'),
  };
}

function restartFlags(initial: Initial) {
  const { condition, delayMs, maxAttempts } = defaultRestartPolicy;
  return {
    'restart-condition': choiceFlag(
      'Restart when condition is met',
      ['none', 'on-failure', 'any'],
      initial(shown(condition)),
    ),
    'restart-delay': durationFlag('Delay between restart attempts', initial(seconds(delayMs))),
    'restart-max-attempts': countFlag(
      'Maximum number of restarts before giving up (0 = unlimited)',
      initial(shown(maxAttempts)),
    ),
    'restart-window': durationFlag('Window used to evaluate the restart policy', initial(shown('unbounded'))),
  };
}

function updateConfigFlags(initial: Initial) {
  const update = defaultUpdateConfig;
  return {
    'update-parallelism': countFlag(
      'Maximum number of tasks updated simultaneously (0 to update all at once)',
      initial(shown(update.parallelism)),
    ),
    'update-delay': durationFlag('Delay between updates', initial(seconds(update.delayMs))),
    'update-order': choiceFlag('Update order', ['start-first', 'stop-first'], initial(shown(update.order))),
    'update-monitor': durationFlag(
      'Duration after each task update to monitor for failure',
      initial(seconds(update.monitorMs)),
    ),
    'update-failure-action': choiceFlag(
      'Action on update failure',
      ['pause', 'continue', 'rollback'],
      initial(shown(update.failureAction)),
    ),
    'update-max-failure-ratio': ratioFlag(
      'Failure rate to tolerate during an update',
      initial(shown(update.maxFailureRatio)),
    ),
    'update-deadline': durationFlag(
      'Time without progress after which an update says why, and fails for the action rollback (0 = never)',
      initial(seconds(update.deadlineMs)),
    ),
    'rollback-deadline': durationFlag(
      'Time without progress after which a rollback says why (0 = never)',
      initial(seconds(update.deadlineMs)),
    ),
    'rollback-parallelism': countFlag(
      'Maximum number of tasks rolled back simultaneously (0 to roll back all at once)',
      initial(shown(update.parallelism)),
    ),
    'rollback-delay': durationFlag('Delay between task rollbacks', initial(seconds(update.delayMs))),
    'rollback-order': choiceFlag(
      'Rollback order',
      ['start-first', 'stop-first'],
      initial(shown(update.order)),
    ),
    'rollback-monitor': durationFlag(
      'Duration after each task rollback to monitor for failure',
      initial(seconds(update.monitorMs)),
    ),
    'rollback-failure-action': choiceFlag(
      'Action on rollback failure',
      ['pause', 'continue'],
      initial(shown(update.failureAction)),
    ),
    'rollback-max-failure-ratio': ratioFlag(
      'Failure rate to tolerate during a rollback',
      initial(shown(update.maxFailureRatio)),
    ),
  };
}

function endpointFlags(initial: Initial) {
  return {
    'endpoint-mode': choiceFlag('Endpoint mode', ['vip', 'dnsrr'], initial(shown('vip'))),
    affinity: choiceFlag(
      'What keeps connections at one task',
      ['none', 'client-address'],
      initial(shown('none')),
    ),
    'weight-label': textFlag(
      'Label of nodes, 1 to 100, that says the share of connections for each task there',
    ),
    'drain-time': durationFlag(
      'Time for connections to end before a task is stopped, while new ones go to others',
      initial(seconds(0)),
    ),
  };
}

function scalarFlags(initial: Initial) {
  return {
    ...containerFlags(initial),
    ...containerScalarFlags,
    ...healthFlags(),
    ...endpointFlags(initial),
    ...restartFlags(initial),
    ...updateConfigFlags(initial),
    'log-driver': textFlag(
      'Logging driver for service (json-file, journald, syslog, none)',
      initial(shown('json-file')),
    ),
    'log-opt': valuesFlag('list', parseLogOption, 'Logging driver options (max-size, max-file)'),
    'no-resolve-image': switchFlag(
      'Do not query the registry to resolve image digest and supported platforms',
    ),
    pull: choiceFlag(
      'When nodes ask the registry for the image',
      ['always', 'missing', 'never'],
      initial(shown('missing, and once for a tag')),
    ),
    'with-registry-auth': switchFlag('Send registry authentication details to swarm agents'),
    'dry-run': switchFlag('Show what would be done, and whether it fits, without doing it'),
    detach: switchFlag('Exit immediately instead of waiting for the service to converge', { shorthand: 'd' }),
    quiet: switchFlag('Suppress progress output', { shorthand: 'q' }),
  };
}

const MOUNT = 'type=volume|bind|tmpfs|image,source=,target=,readonly,…';
const ATTACHMENT = 'NAME, or name=NAME[,alias=ALIAS][,vip=ADDRESS]';
const PORT =
  '[ADDRESS:]PUBLISHED:TARGET, or target=PORT[,published=PORT][,mode=ingress|host][,address=|interface=][,local=prefer|only]';

export const createFlags = {
  name: textFlag('Service name', { defaultText: 'random' }),
  mode: choiceFlag('Service mode', MODE_NAMES, shown('replicated')),
  ...scalarFlags((options) => options),
  ...createContainerFlags,
  group: listFlag('Set one or more supplementary user groups for the container'),
  env: listFlag('Set environment variables', { shorthand: 'e' }),
  'env-file': listFlag('Read in a file of environment variables'),
  label: valuesFlag('list', parseLabel, 'Service labels', { shorthand: 'l' }),
  'container-label': valuesFlag('list', parseLabel, 'Container labels'),
  constraint: listFlag('Placement constraints (KEY==VALUE or KEY!=VALUE)'),
  'placement-pref': listFlag('Add a placement preference (spread=node.labels.LABEL)'),
  'placement-affinity': listFlag(
    'Share nodes with another service, or share none ([prefer:]service==NAME or [prefer:]service!=NAME)',
  ),
  'generic-resource': valuesFlag(
    'list',
    parseGenericRequest,
    'Reserve resources that nodes are told to have (KIND=COUNT)',
  ),
  mount: valuesFlag('mount', parseMount, `Attach a filesystem mount to the service (${MOUNT})`),
  secret: valuesFlag('secret', parseFileReference, `Secret as a file of the service (${FILE_SYNTAX})`, {
    completes: 'secret',
  }),
  config: valuesFlag('config', parseFileReference, `Config as a file of the service (${FILE_SYNTAX})`, {
    completes: 'config',
  }),
  network: valuesFlag('network', parseNetworkAttachment, `Network to be part of (${ATTACHMENT})`, {
    completes: 'network',
  }),
  publish: valuesFlag('port', parsePublish, `Publish a port (${PORT})`, { shorthand: 'p' }),
};

export const updateFlags = {
  image: textFlag('Service image tag'),
  args: valueFlag('command', splitShellWords, 'Service command args'),
  force: switchFlag('Force update even if no changes require it'),
  rollback: switchFlag('Rollback to previous specification'),
  ...scalarFlags(() => ({})),
  ...updateContainerFlags,
  'group-add': listFlag('Add an additional supplementary user group to the container'),
  'group-rm': listFlag('Remove a previously added supplementary user group from the container'),
  'env-add': listFlag('Add or update an environment variable'),
  'env-rm': listFlag('Remove an environment variable'),
  'label-add': valuesFlag('list', parseLabel, 'Add or update a service label'),
  'label-rm': listFlag('Remove a label by its key'),
  'container-label-add': valuesFlag('list', parseLabel, 'Add or update a container label'),
  'container-label-rm': listFlag('Remove a container label by its key'),
  'constraint-add': listFlag('Add or update a placement constraint'),
  'constraint-rm': listFlag('Remove a constraint'),
  'placement-pref-add': listFlag('Add a placement preference'),
  'placement-pref-rm': listFlag('Remove a placement preference'),
  'placement-affinity-add': listFlag('Add an affinity ([prefer:]service==NAME or [prefer:]service!=NAME)'),
  'placement-affinity-rm': listFlag('Remove an affinity'),
  'generic-resource-add': valuesFlag('list', parseGenericRequest, 'Add or change a generic resource'),
  'generic-resource-rm': listFlag('Remove a generic resource by its kind'),
  'mount-add': valuesFlag('mount', parseMount, 'Add or update a mount on a service'),
  'mount-rm': listFlag('Remove a mount by its target path'),
  'secret-add': valuesFlag('secret', parseFileReference, `Add or update a secret (${FILE_SYNTAX})`, {
    completes: 'secret',
  }),
  'secret-rm': listFlag('Remove a secret', { completes: 'secret' }),
  'config-add': valuesFlag('config', parseFileReference, `Add or update a config (${FILE_SYNTAX})`, {
    completes: 'config',
  }),
  'config-rm': listFlag('Remove a config', { completes: 'config' }),
  'network-add': valuesFlag('network', parseNetworkAttachment, `Add a network (${ATTACHMENT})`, {
    completes: 'network',
  }),
  'network-rm': listFlag('Remove a network', { completes: 'network' }),
  'publish-add': valuesFlag('port', parsePublish, `Add or update a published port (${PORT})`),
  'publish-rm': valuesFlag('port', parseTargetPort, 'Remove a published port by its target port'),
};
