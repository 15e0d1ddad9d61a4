// A service that says who answers and who asked, and clients of it, as real containers: this machine's perl in its own files.

import { execFile, spawn } from 'node:child_process';
import {
  type ContainerSpec,
  emptyHealthCheck,
  emptyMount,
  type Mount,
  type Task,
} from '../../core/generated/objects.ts';

export const ECHO_PORT = 8000;

const SHARED = [
  ['/usr', '/usr'],
  ['/usr/lib', '/lib'],
  ['/usr/lib64', '/lib64'],
] as const;

/** Answers every line, over TCP and UDP, with "<task> <client's address> <own address>"; connections stay open. */
const SERVER = `
use strict; use Socket qw(:all); use IO::Select; use IO::Handle;
my ($name, $port) = @ARGV;
sub bound { my ($type) = @_;
  my $s; socket($s, AF_INET6, $type, 0) or socket($s, AF_INET, $type, 0) or die "socket: $!";
  setsockopt($s, SOL_SOCKET, SO_REUSEADDR, 1);
  setsockopt($s, IPPROTO_IPV6, IPV6_V6ONLY, 0);
  bind($s, pack_sockaddr_in6($port, IN6ADDR_ANY)) or bind($s, pack_sockaddr_in($port, INADDR_ANY)) or die "bind: $!";
  return $s; }
sub text { my ($e, $host) = getnameinfo($_[0], NI_NUMERICHOST | NI_NUMERICSERV, NIx_NOSERV); $host =~ s/^::ffff://; return $host; }
my $udp = bound(SOCK_DGRAM); my $tcp = bound(SOCK_STREAM); listen($tcp, 1024) or die;
$SIG{TERM} = sub { exit 0 }; $SIG{PIPE} = 'IGNORE';
my $all = IO::Select->new($tcp, $udp);
while (1) { for my $s ($all->can_read()) {
  if ($s == $tcp) { if (accept(my $c, $tcp)) { $c->autoflush(1); $all->add($c); } }
  elsif ($s == $udp) { my $from = recv($udp, my $data, 2000, 0); send($udp, $name . ' ' . text($from) . " -\\n", 0, $from) if defined $from; }
  else { my $n = sysread($s, my $data, 65536);
    if (!$n) { $all->remove($s); close $s; }
    else { syswrite($s, ($name . ' ' . text(getpeername($s)) . ' ' . text(getsockname($s)) . "\\n") x ($data =~ tr/\\n//)); } }
} }
`;

/**
 * Asks over and over and prints a line for each answer or error. Arguments: tcp, udp, tcp-keep or udp-keep (one connection), host,
 * port, how often (0: until told to stop), pause in milliseconds, 4 or 6 for addresses of that family only.
 */
const CLIENT = `
use strict; use Socket qw(:all); use Time::HiRes qw(sleep time); $| = 1;
my ($how, $host, $port, $count, $pause, $family) = @ARGV; my $udp = $how =~ /^udp/; my $keeps = $how =~ /keep$/; my $kept;
sub opened { my ($e, @found) = getaddrinfo($host, $port, { socktype => $udp ? SOCK_DGRAM : SOCK_STREAM, family => $family == 4 ? AF_INET : $family == 6 ? AF_INET6 : 0 });
  return (undef, "name: $e") if $e || !@found;
  my $s; socket($s, $found[0]{family}, $found[0]{socktype}, 0) or return (undef, "socket: $!");
  setsockopt($s, SOL_SOCKET, SO_RCVTIMEO, pack('qq', 2, 0)); setsockopt($s, SOL_SOCKET, SO_SNDTIMEO, pack('qq', 2, 0));
  connect($s, $found[0]{addr}) or return (undef, "connect: $!"); return ($s, ''); }
$SIG{PIPE} = 'IGNORE'; $SIG{TERM} = sub { exit 0 };
for (my $i = 0; !$count || $i < $count; $i++) {
  my $begin = time;
  my ($s, $error) = $kept ? ($kept, '') : opened();
  $kept = $s if $keeps;
  if ($s) { send($s, "?\\n", 0) or $error = "send: $!";
    if (!$error) { my $r = recv($s, my $data, 2000, 0); $error = "recv: $!" unless defined $r; $error ||= 'closed' if $data eq ''; print $data if !$error; } }
  if ($error) { printf "error %d $error\\n", (time - $begin) * 1000; exit 1 if $keeps; }
  close $s if $s && !$kept;
  sleep($pause / 1000) if $pause; }
`;

const LISTENS = `
use Socket; socket(my $s, PF_INET, SOCK_STREAM, 0) or die;
exit !connect($s, pack_sockaddr_in(${ECHO_PORT}, INADDR_LOOPBACK));
`;

/** A task of it runs when it answers. */
export function echoContainer(): Partial<ContainerSpec> {
  const mounts = SHARED.map(
    ([source, target]): Mount => ({ ...emptyMount, type: 'bind', source, target, readOnly: true }),
  );
  return {
    mounts,
    command: ['/bin/sh', '-c', 'exec /usr/bin/perl -e "$0" "$HOSTNAME" "$1"', SERVER, String(ECHO_PORT)],
    healthCheck: {
      ...emptyHealthCheck,
      test: ['CMD', '/usr/bin/perl', '-e', LISTENS],
      intervalMs: 30_000,
      startPeriodMs: 10_000,
      startIntervalMs: 50,
    },
  };
}

export interface Answer {
  /** Host name of the container that answered: the start of its task's id. */
  readonly server: string;
  /** Whom the server saw. */
  readonly client: string;
  readonly error: string;
  /** How long it took to fail. */
  readonly tookMs: number;
}

export interface Failure {
  readonly error: string;
  /** When the request was made, and how long it took to fail. */
  readonly atMs: number;
  readonly tookMs: number;
}

/** How to ask from somewhere: inside a task's container, or in the network namespace of a host. */
export type Place = { readonly task: Task } | { readonly host: string };

export interface Question {
  readonly how?: 'tcp' | 'udp' | 'tcp-keep' | 'udp-keep';
  readonly host: string;
  readonly port?: number;
  readonly count?: number;
  readonly pauseMs?: number;
  /** Whichever the resolver puts first when absent. */
  readonly family?: 4 | 6;
}

/** Asks so many times, one after the other. */
export function ask(place: Place, question: Question): Promise<Answer[]> {
  return new Promise((resolve, reject) => {
    const [program, ...args] = clientCommand(place, { count: 1, ...question });
    execFile(program as string, args, { timeout: 60_000 }, (error, stdout, stderr) => {
      if (stdout === '' && error !== null) reject(new Error(`client: ${error.message} ${stderr}`));
      else resolve(answersIn(stdout));
    });
  });
}

/** Asks until it is told to end. */
export class Asking implements AsyncDisposable {
  readonly #child;
  /** The start of a line that has not ended. */
  #rest = '';
  answered = 0;
  /** Who answered last. */
  server = '';
  readonly failures: Failure[] = [];

  constructor(place: Place, question: Question) {
    const [program, ...args] = clientCommand(place, { pauseMs: 5, ...question, count: 0 });
    this.#child = spawn(program as string, args, { stdio: ['ignore', 'pipe', 'pipe'] });
    this.#child.stdout.setEncoding('utf8').on('data', (text: string) => {
      const whole = this.#rest + text;
      const end = whole.lastIndexOf('\n') + 1;
      this.#rest = whole.slice(end);
      for (const { error, tookMs, server } of answersIn(whole.slice(0, end)))
        if (error === '') {
          this.answered++;
          this.server = server;
        } else this.failures.push({ error, atMs: Date.now() - tookMs, tookMs });
    });
  }

  get errors(): string[] {
    return this.failures.map(({ error }) => error);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#child.exitCode !== null) return;
    const ended = new Promise((resolve) => this.#child.once('exit', resolve));
    this.#child.kill();
    await ended;
  }
}

function clientCommand(
  place: Place,
  { how = 'tcp', host, port = ECHO_PORT, count = 1, pauseMs = 0, family }: Question,
): string[] {
  const numbers = [port, count, pauseMs, family ?? 0].map(String);
  const perl = ['/usr/bin/perl', '-e', CLIENT, how, host, ...numbers];
  if ('host' in place) return ['ip', 'netns', 'exec', place.host, ...perl];
  const pid = place.task.status.container?.pid ?? 0;
  if (pid === 0) throw new Error(`task ${place.task.id} has no process`);
  return ['nsenter', '-t', String(pid), '-n', '-m', '--', ...perl];
}

function answersIn(output: string): Answer[] {
  const lines = output.split('\n').filter((line) => line !== '');
  return lines.map((line) => {
    const [server = '', client = '', ...rest] = line.split(' ');
    if (server === 'error') return { server: '', client: '', error: rest.join(' '), tookMs: Number(client) };
    return { server, client, error: '', tookMs: 0 };
  });
}
