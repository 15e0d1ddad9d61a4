// Flags that many commands share.

import { listFlag, switchFlag, textFlag } from './flag.ts';

const FORMAT_HELP = 'Format output: "table", "table TEMPLATE", "json", or a Go TEMPLATE';

export const formatFlag = textFlag(FORMAT_HELP);
export const inspectFlags = {
  format: textFlag('Format output: "json" or a Go TEMPLATE', { shorthand: 'f' }),
  pretty: switchFlag('Print the information in a human friendly format'),
};
export const filterFlag = listFlag('Filter output based on conditions provided (KEY=VALUE)', {
  shorthand: 'f',
});
export const quietFlag = switchFlag('Only display IDs', { shorthand: 'q' });
export const noTruncFlag = switchFlag('Do not truncate output');
export const detachFlag = switchFlag('Exit immediately instead of waiting for the service to converge', {
  shorthand: 'd',
});
export const noResolveFlag = switchFlag('Do not map IDs to Names');
