#!/bin/sh
# `npm test`: everything, from a fresh clone. Without root the tests that make containers are skipped, and say so.
set -u
cd "$(dirname "$0")/.." || exit 1
. deploy/prepare.sh

require_linux
if [ "$(id -u)" = 0 ]; then install_debian $NODE_PACKAGES $TEST_PACKAGES; else say "not root: tests of real containers and networks are skipped"; fi
install_npm
build

say "checking types, style and generated code"
node_modules/.bin/tsc || fail "the types do not check"
node_modules/.bin/knip --no-progress >&2 || fail "something is exported, or there, that nothing uses"
node_modules/.bin/biome check . >/dev/null 2>&1 || { node_modules/.bin/biome check . >&2; fail "style: npm run format mends most of it"; }
"$NODE" proto/generate.ts && git diff --quiet -- proto/generated core/generated 2>/dev/null ||
  [ ! -d .git ] || fail "generated code differs from proto/: npm run generate, then commit"

say "running the tests"
# Each file is a process of its own, and many start more: what one has compiled the others need not.
NODE_COMPILE_CACHE=$PWD/node_modules/.cache/compiled
export NODE_COMPILE_CACHE
# A test file that hangs must not hang the run: the whole takes a few minutes.
exec timeout --kill-after=10 2700 "$NODE" --test --test-concurrency=2 --test-timeout=300000 --test-reporter=spec \
  'core/**/*.test.ts' 'proto/**/*.test.ts' 'rpc/**/*.test.ts' 'manager/**/*.test.ts' 'agent/**/*.test.ts' \
  'node/**/*.test.ts' 'cli/**/*.test.ts' 'deploy/**/*.test.ts' 'bench/**/*.test.ts' 'test/**/*.test.ts'
