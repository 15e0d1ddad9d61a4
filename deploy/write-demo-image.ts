// Writes the demonstration's image to standard output: a web server that tells the name of its container.
// Usage: write-demo-image.ts NAME

import { buildDemoImage } from './demo-image.ts';

// The shell is process 1: it passes TERM on, so that the container ends at once when it is told to.
const SERVE =
  'mkdir -p /tmp/www && echo "hello from $(hostname)" > /tmp/www/index.html; ' +
  'trap "kill $!; exit 0" TERM; httpd -f -p 8080 -h /tmp/www & wait $!';

const [name = 'tsswarm-demo:1'] = process.argv.slice(2);
const config = { Cmd: ['sh', '-c', SERVE], ExposedPorts: { '8080/tcp': {} } };
process.stdout.write((await buildDemoImage({ name, config })).archive);
