// Runs Go templates over plain values: what `--format` gives to every list and inspect command, and what tasks fill
// their spec and files with. A template can do nothing but read its data and call the functions that it is given.

import { isTruthy, printValue, type TemplateFunction, templateFunctions } from './template-functions.ts';
import {
  type Operand,
  type Pipeline,
  parseTemplate,
  type Stage,
  type TemplateNode,
} from './template-parser.ts';

export interface TemplateOptions {
  /** A missing field is an error that names the known ones, instead of "<no value>". */
  readonly isStrict?: boolean;
  /** More than the built-in ones. */
  readonly functions?: Readonly<Record<string, TemplateFunction>>;
  /** What one run may take; absent: the template is the caller's own. */
  readonly limits?: TemplateLimits;
}

export interface TemplateLimits {
  readonly outputLengthMax: number;
  /** Nodes and calls, those of loops each time. */
  readonly stepsMax: number;
}

const UNLIMITED: TemplateLimits = {
  outputLengthMax: Number.POSITIVE_INFINITY,
  stepsMax: Number.POSITIVE_INFINITY,
};

export type Template = (data: unknown) => string;

/** Throws an Error on a bad template, also one with an unknown function; the result throws on a bad field or argument. */
export function compileTemplate(
  source: string,
  { isStrict = false, functions = {}, limits = UNLIMITED }: TemplateOptions = {},
): Template {
  const nodes = parseTemplate(source);
  const known = { ...templateFunctions, ...functions };
  for (const name of functionsIn(nodes))
    if (!Object.hasOwn(known, name) && name !== 'and' && name !== 'or')
      throw new Error(`function "${name}" not defined`);
  return (data) => {
    const run = new TemplateRun({ isStrict, functions: known, limits });
    run.all(nodes, data, new Scope(undefined, [['$', data]]));
    return run.output;
  };
}

class Scope {
  readonly #parent: Scope | undefined;
  readonly #values: Map<string, unknown>;

  constructor(parent: Scope | undefined, values: Iterable<readonly [string, unknown]> = []) {
    this.#parent = parent;
    this.#values = new Map(values);
  }

  get(name: string): unknown {
    if (this.#values.has(name)) return this.#values.get(name);
    if (this.#parent === undefined) throw new Error(`undefined variable "${name}"`);
    return this.#parent.get(name);
  }

  declare(name: string, value: unknown): void {
    this.#values.set(name, value);
  }

  assign(name: string, value: unknown): void {
    if (this.#values.has(name)) this.#values.set(name, value);
    else if (this.#parent === undefined) throw new Error(`undefined variable "${name}"`);
    else this.#parent.assign(name, value);
  }
}

class TemplateRun {
  output = '';
  #steps = 0;
  readonly #options: Required<TemplateOptions>;

  constructor(options: Required<TemplateOptions>) {
    this.#options = options;
  }

  all(nodes: readonly TemplateNode[], dot: unknown, scope: Scope): void {
    for (const node of nodes) this.#one(node, dot, scope);
  }

  #one(node: TemplateNode, dot: unknown, scope: Scope): void {
    this.#countStep();
    if (node.kind === 'text') {
      this.#print(node.text);
      return;
    }
    if (node.kind === 'print') {
      const value = this.#pipeline(node.pipeline, dot, scope);
      if (node.pipeline.assigns === undefined) this.#print(printValue(value));
      return;
    }
    const inner = new Scope(scope);
    if (node.kind === 'range') {
      this.#range(node, dot, inner);
      return;
    }
    const value = this.#pipeline(node.pipeline, dot, inner);
    if (isTruthy(value)) this.all(node.body, node.kind === 'with' ? value : dot, inner);
    else this.all(node.otherwise, dot, inner);
  }

  #range(node: Exclude<TemplateNode, { kind: 'text' | 'print' }>, dot: unknown, scope: Scope): void {
    const names = node.pipeline.assigns ?? [];
    const value = this.#stages(node.pipeline.stages, dot, scope);
    const entries = entriesOf(value, this.#options.limits.stepsMax);
    if (entries.length === 0) this.all(node.otherwise, dot, scope);
    for (const [key, item] of entries) {
      const inner = new Scope(scope);
      const [first, second] = names;
      if (first !== undefined) inner.declare(first, second === undefined ? item : key);
      if (second !== undefined) inner.declare(second, item);
      this.all(node.body, item, inner);
    }
  }

  #pipeline(pipeline: Pipeline, dot: unknown, scope: Scope): unknown {
    const value = this.#stages(pipeline.stages, dot, scope);
    for (const name of pipeline.assigns ?? []) {
      if (pipeline.isDeclaration) scope.declare(name, value);
      else scope.assign(name, value);
    }
    return value;
  }

  #stages(stages: readonly Stage[], dot: unknown, scope: Scope): unknown {
    let value: unknown;
    for (const [position, stage] of stages.entries())
      value = this.#stage(stage, position === 0 ? [] : [value], dot, scope);
    return value;
  }

  /** `piped` is the value of the stage before: the last argument. */
  #stage(stage: Stage, piped: readonly unknown[], dot: unknown, scope: Scope): unknown {
    const [first, ...rest] = stage as [Operand, ...Operand[]];
    if (first.kind !== 'function') {
      if (rest.length + piped.length > 0)
        throw new Error(`can't give argument to non-function ${nameOf(first)}`);
      return this.#operand(first, dot, scope);
    }
    if (first.name === 'and' || first.name === 'or') {
      let value: unknown;
      for (const operand of rest) {
        value = this.#operand(operand, dot, scope);
        if (isTruthy(value) === (first.name === 'or')) return value;
      }
      return piped.length > 0 ? piped[0] : value;
    }
    const call = this.#options.functions[first.name] as TemplateFunction;
    const args = rest.map((operand) => this.#operand(operand, dot, scope));
    this.#countStep();
    try {
      const value = call(...args, ...piped);
      // Variables could double it again and again.
      if (typeof value === 'string') this.#requireLength(value.length);
      return value;
    } catch (error) {
      throw new Error(`error calling ${first.name}: ${(error as Error).message}`);
    }
  }

  #print(text: string): void {
    this.#requireLength(this.output.length + text.length);
    this.output += text;
  }

  #requireLength(length: number): void {
    const { outputLengthMax } = this.#options.limits;
    if (length > outputLengthMax) throw new Error(`its output is longer than ${outputLengthMax} characters`);
  }

  #countStep(): void {
    const { stepsMax } = this.#options.limits;
    if (++this.#steps > stepsMax) throw new Error(`it takes more than ${stepsMax} steps`);
  }

  #operand(operand: Operand, dot: unknown, scope: Scope): unknown {
    switch (operand.kind) {
      case 'literal':
        return operand.value;
      case 'field':
        return this.#lookUp(dot, operand.path);
      case 'variable':
        return this.#lookUp(scope.get(operand.name), operand.path);
      case 'pipeline':
        return this.#lookUp(this.#pipeline(operand.pipeline, dot, scope), operand.path);
      case 'function':
        return this.#stage([operand], [], dot, scope);
    }
  }

  #lookUp(value: unknown, path: readonly string[]): unknown {
    return path.reduce((current, name) => {
      if (typeof current === 'object' && current !== null && Object.hasOwn(current, name))
        return (current as Record<string, unknown>)[name];
      if (this.#options.isStrict || (typeof current !== 'object' && current !== undefined))
        throw new Error(`can't evaluate field ${name}${knownFields(current)}`);
      return undefined;
    }, value);
  }
}

/** Names of all functions, also of those that may not be called. */
function* functionsIn(nodes: readonly TemplateNode[]): Iterable<string> {
  for (const node of nodes) {
    if (node.kind === 'text') continue;
    yield* functionsOf(node.pipeline);
    if (node.kind === 'print') continue;
    yield* functionsIn(node.body);
    yield* functionsIn(node.otherwise);
  }
}

function* functionsOf({ stages }: Pipeline): Iterable<string> {
  for (const operand of stages.flat()) {
    if (operand.kind === 'function') yield operand.name;
    else if (operand.kind === 'pipeline') yield* functionsOf(operand.pipeline);
  }
}

function entriesOf(value: unknown, countMax: number): [unknown, unknown][] {
  if (value === undefined || value === null || value === '') return [];
  if (Array.isArray(value)) return value.map((item, position) => [position, item]);
  if (typeof value === 'object') return Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1));
  if (typeof value === 'number' && value > countMax) throw new Error(`range over ${value} is too much`);
  if (typeof value === 'number') return Array.from({ length: value }, (_, position) => [position, position]);
  throw new Error(`range can't iterate over a ${typeof value}`);
}

function knownFields(value: unknown): string {
  // Never the value itself: it may be of a secret.
  if (typeof value !== 'object' || value === null) return ` of a ${value === null ? 'nil' : typeof value}`;
  return `; known are ${Object.keys(value)
    .map((name) => `.${name}`)
    .join(', ')}`;
}

function nameOf(operand: Operand): string {
  return 'path' in operand ? `.${operand.path.join('.')}` : 'literal';
}
