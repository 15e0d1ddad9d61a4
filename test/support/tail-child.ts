// Tails one spool until it is killed: directory and settings come as JSON.

import { LogTailer } from '../../agent/engine/logs/tailer.ts';
import { testLog } from './engine.ts';

const { directory, settings, spool } = JSON.parse(process.argv[2] as string);
const tailer = new LogTailer({ directory, settings, spool, log: testLog });
process.stdout.write('ready\n');
setInterval(() => tailer.pump(), 1);
