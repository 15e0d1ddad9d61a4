// What lines look like where others keep them: the journal's native protocol, and syslog's formats.

import { existsSync } from 'node:fs';
import os from 'node:os';
import { SwarmError } from '../../../core/errors.ts';
import type { LogTarget, SyslogTarget } from '../../../core/log-driver.ts';
import type { LogSettings } from '../engine.ts';
import type { LogStream } from './json-log.ts';
import { LineQueue, type LineTransport } from './line-queue.ts';
import { streamTo, udpDatagrams, unixDatagrams } from './transports.ts';

const JOURNAL_SOCKET = '/run/systemd/journal/socket';
/** Priorities of syslog and the journal, as Docker gives them. */
const PRIORITY: Readonly<Record<LogStream, number>> = { stdout: 6, stderr: 3 };
const MONTHS = 'Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec'.split(' ');

export interface SinkLine {
  readonly stream: LogStream;
  /** With its newline, when it had one. */
  readonly line: string;
  /** RFC 3339. */
  readonly time: string;
}

export class LineSink {
  readonly #queue: LineQueue;
  readonly #format: (line: SinkLine) => Buffer;

  constructor(queue: LineQueue, format: (line: SinkLine) => Buffer) {
    this.#queue = queue;
    this.#format = format;
  }

  write(line: SinkLine): void {
    this.#queue.offer(this.#format(line));
  }

  takeDropped(): number {
    return this.#queue.takeDropped();
  }

  finish(): Promise<void> {
    return this.#queue.finish();
  }
}

/** The way to a container's target; undefined when its lines stay here. */
export function openSink(id: string, settings: LogSettings): LineSink | undefined {
  const { target, tag = id.slice(0, 12), name = id, details = {} } = settings;
  if (target === undefined) return undefined;
  if (target.kind === 'journald') {
    const fields = {
      CONTAINER_ID: id.slice(0, 12),
      CONTAINER_ID_FULL: id,
      CONTAINER_NAME: name,
      CONTAINER_TAG: tag,
    };
    const shared = { ...fields, SYSLOG_IDENTIFIER: tag, ...journalNames(details) };
    return new LineSink(new LineQueue(unixDatagrams(JOURNAL_SOCKET)), (line) => journalEntry(line, shared));
  }
  return new LineSink(new LineQueue(transportTo(target)), (line) => syslogMessage(line, target, tag));
}

/** Throws `failed-precondition` when this machine has not what the target needs. */
export function checkTarget(target: LogTarget | undefined, hostname: string): void {
  const missing =
    target?.kind === 'journald' && !existsSync(JOURNAL_SOCKET)
      ? JOURNAL_SOCKET
      : target?.kind === 'syslog' && target.transport === 'unixgram' && !existsSync(target.host)
        ? target.host
        : [target?.kind === 'syslog' ? [target.caFile, target.certFile, target.keyFile] : []]
            .flat()
            .find((file) => file !== '' && !existsSync(file));
  if (missing !== undefined)
    throw new SwarmError(
      'failed-precondition',
      `log-driver ${target?.kind}: node ${hostname} has no ${missing}`,
      {
        hint: 'Choose another log driver, or keep the service to nodes that have it with a constraint.',
      },
    );
}

function transportTo(target: SyslogTarget): LineTransport {
  if (target.transport === 'unixgram') return unixDatagrams(target.host);
  return target.transport === 'udp' ? udpDatagrams(target) : streamTo(target);
}

/** Fields of the journal are upper-case letters, digits and underscores, and begin with a letter. */
function journalNames(details: Readonly<Record<string, string>>): Record<string, string> {
  return Object.fromEntries(
    Object.entries(details).map(([key, value]) => [
      key
        .toUpperCase()
        .replace(/[^A-Z0-9]/g, '_')
        .replace(/^[^A-Z]+/, ''),
      value,
    ]),
  );
}

/** A field with a newline in it is written with its length. */
export function journalEntry(
  { stream, line, time }: SinkLine,
  shared: Readonly<Record<string, string>>,
): Buffer {
  const fields = {
    ...shared,
    MESSAGE: line.replace(/\n$/, ''),
    PRIORITY: String(PRIORITY[stream]),
    SYSLOG_TIMESTAMP: time,
  };
  return Buffer.concat(
    Object.entries(fields).flatMap(([key, value]) => {
      if (key === '') return [];
      if (!value.includes('\n')) return [Buffer.from(`${key}=${value}\n`)];
      const data = Buffer.from(value);
      const length = Buffer.alloc(8);
      length.writeBigUInt64LE(BigInt(data.length));
      return [Buffer.from(`${key}\n`), length, data, Buffer.from('\n')];
    }),
  );
}

/** On streams a message ends with a newline; on TLS its length stands before it, as RFC 5425 has it for RFC 5424. */
export function syslogMessage({ stream, line, time }: SinkLine, target: SyslogTarget, tag: string): Buffer {
  const { format, facility, transport } = target;
  const priority = facility * 8 + PRIORITY[stream];
  const text = line.replace(/\n$/, '');
  const isStream = transport === 'tcp' || transport === 'tcp+tls';
  const body =
    format === 'rfc3164'
      ? `<${priority}>${shortTime(time)} ${transport === 'unixgram' ? '' : `${os.hostname()} `}${tag}[${process.pid}]: ${text}`
      : `<${priority}>1 ${longTime(time, format)} ${os.hostname()} ${tag} ${process.pid} ${tag} - ${text}`;
  const message = Buffer.from(isStream ? `${body}\n` : body);
  if (transport !== 'tcp+tls' || format === 'rfc3164') return message;
  return Buffer.concat([Buffer.from(`${message.length} `), message]);
}

/** "Jan  2 15:04:05", in the machine's own time. */
function shortTime(time: string): string {
  const moment = new Date(time);
  const two = (part: number) => String(part).padStart(2, '0');
  const clock = [moment.getHours(), moment.getMinutes(), moment.getSeconds()].map(two).join(':');
  return `${MONTHS[moment.getMonth()]} ${String(moment.getDate()).padStart(2)} ${clock}`;
}

function longTime(time: string, format: 'rfc5424' | 'rfc5424micro'): string {
  return format === 'rfc5424' ? `${time.slice(0, 19)}Z` : `${time.slice(0, 26)}Z`;
}
