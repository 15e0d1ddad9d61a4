// What the examination of a machine has found, a line each and the way out below it. Pure.

import type { Finding, Severity } from '../../proto/generated/node.ts';

const signs: Readonly<Record<Severity, { readonly utf8: string; readonly ascii: string }>> = {
  good: { utf8: '✔', ascii: '[ok]' },
  warning: { utf8: '⚠', ascii: '[??]' },
  fatal: { utf8: '✘', ascii: '[!!]' },
};

export function formatFindings(findings: readonly Finding[], isUtf8: boolean): string {
  const kind = isUtf8 ? 'utf8' : 'ascii';
  return findings
    .map(({ severity, subject, text, remedy }) => {
      const line = `${signs[severity][kind]} ${subject}: ${text}\n`;
      return remedy === '' ? line : `${line}    ${isUtf8 ? '→' : '->'} ${remedy}\n`;
    })
    .join('');
}
