// What `inspect` prints: an array of JSON objects, or a template per object. Pure.

import { messageOf } from '../../core/errors.ts';
import { compileTemplate } from '../../core/template.ts';
import { toJson } from '../../core/template-functions.ts';
import { UsageError } from '../usage-error.ts';

export function formatInspect(objects: readonly object[], format: string | undefined): string {
  if (format === undefined || format === '') return `${JSON.stringify(objects, undefined, 4)}\n`;
  if (format === 'json') return `${toJson(objects)}\n`;
  try {
    const run = compileTemplate(format);
    return objects.map((object) => `${run(object)}\n`).join('');
  } catch (error) {
    throw new UsageError(`--format: template error: ${messageOf(error)}`);
  }
}
