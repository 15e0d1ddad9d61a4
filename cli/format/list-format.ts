// What `ls` and `ps` print: Docker's table, names only, JSON lines, or an operator's template. Pure.

import { messageOf } from '../../core/errors.ts';
import { compileTemplate, type Template } from '../../core/template.ts';
import { toJson } from '../../core/template-functions.ts';
import { alignColumns } from '../output/tabwriter.ts';
import { UsageError } from '../usage-error.ts';

export type Row = Readonly<Record<string, unknown>>;

export interface ListFormat {
  /** Title of each field; templates may name fields that the default table leaves out. */
  readonly titles: Readonly<Record<string, string>>;
  /** The default table: a template, its cells separated by tabs. */
  readonly layout: string;
  readonly format: string | undefined;
  readonly isQuiet?: boolean | undefined;
  /** What --quiet prints. */
  readonly quietField?: string;
}

/** The whole output, empty or ended by a newline. */
export function formatList(rows: readonly Row[], options: ListFormat): string {
  const { titles, layout, format = 'table', isQuiet = false, quietField = 'ID' } = options;
  if (isQuiet && (format === 'table' || format === ''))
    return lines(rows.map((row) => String(row[quietField])));
  if (format === 'json') return lines(rows.map((row) => toJson(sortedFields(row))));
  if (format === 'table' || format === '') return table(rows, titles, layout);
  const custom = /^table\s+(.*)$/s.exec(format)?.[1];
  if (custom !== undefined) return table(rows, titles, withEscapes(custom));
  const run = compile(withEscapes(format));
  return lines(rows.map((row) => execute(run, row)));
}

function table(rows: readonly Row[], titles: Readonly<Record<string, string>>, source: string): string {
  const run = compile(source);
  const header = execute(compile(source.replace(/\{\{\s*json\s/g, '{{')), titles);
  const all = [header, ...rows.map((row) => execute(run, row))];
  // A template may print several lines for a row.
  return lines(alignColumns(all.flatMap((line) => line.split('\n'))));
}

/** Shells hand over "\t" as two characters. */
function withEscapes(source: string): string {
  return source.replaceAll('\\t', '\t').replaceAll('\\n', '\n');
}

function compile(source: string): Template {
  try {
    return compileTemplate(source, { isStrict: true });
  } catch (error) {
    throw new UsageError(`--format: template parsing error: ${messageOf(error)}`);
  }
}

function execute(run: Template, data: Row): string {
  try {
    return run(data);
  } catch (error) {
    throw new UsageError(`--format: template execution error: ${messageOf(error)}`);
  }
}

function sortedFields(row: Row): Row {
  return Object.fromEntries(Object.entries(row).sort(([a], [b]) => (a < b ? -1 : 1)));
}

function lines(all: readonly string[]): string {
  return all.map((line) => `${line}\n`).join('');
}
