// Builds the tree of a Go template from its pieces. Pure.

import { lexTemplate, type Piece, type Token } from './template-lexer.ts';

export type Operand =
  | { readonly kind: 'field'; readonly path: readonly string[] }
  | { readonly kind: 'variable'; readonly name: string; readonly path: readonly string[] }
  | { readonly kind: 'literal'; readonly value: string | number | boolean | null }
  | { readonly kind: 'function'; readonly name: string }
  | { readonly kind: 'pipeline'; readonly pipeline: Pipeline; readonly path: readonly string[] };

/** One stage: a function with arguments, or a single value. */
export type Stage = readonly Operand[];

export interface Pipeline {
  /** "$x := …" or "$x = …". */
  readonly assigns?: readonly string[];
  readonly isDeclaration?: boolean;
  readonly stages: readonly Stage[];
}

export type TemplateNode =
  | { readonly kind: 'text'; readonly text: string }
  | { readonly kind: 'print'; readonly pipeline: Pipeline }
  | {
      readonly kind: 'if' | 'with' | 'range';
      readonly pipeline: Pipeline;
      readonly body: readonly TemplateNode[];
      readonly otherwise: readonly TemplateNode[];
    };

/** Throws an Error that says what is wrong with the template. */
export function parseTemplate(source: string): TemplateNode[] {
  const reader = new PieceReader(lexTemplate(source));
  const { nodes, ending } = parseList(reader);
  if (ending !== undefined) throw new Error(`unexpected {{${ending.word}}}`);
  return nodes;
}

class PieceReader {
  readonly #pieces: readonly Piece[];
  #position = 0;

  constructor(pieces: readonly Piece[]) {
    this.#pieces = pieces;
  }

  next(): Piece | undefined {
    return this.#pieces[this.#position++];
  }
}

interface Ending {
  readonly word: 'end' | 'else';
  /** What follows {{else}}: "if …" or "with …". */
  readonly rest: readonly Token[];
}

function parseList(reader: PieceReader): { nodes: TemplateNode[]; ending?: Ending } {
  const nodes: TemplateNode[] = [];
  for (let piece = reader.next(); piece !== undefined; piece = reader.next()) {
    if (piece.kind === 'text') {
      nodes.push(piece);
      continue;
    }
    const [first, ...rest] = piece.tokens;
    const word = first?.kind === 'word' ? first.text : '';
    if (word === 'end' || word === 'else') return { nodes, ending: { word, rest } };
    if (word === 'if' || word === 'with' || word === 'range') nodes.push(parseBlock(word, rest, reader));
    else if (['define', 'template', 'block', 'break', 'continue'].includes(word))
      throw new Error(`{{${word}}} is not supported`);
    else nodes.push({ kind: 'print', pipeline: parsePipeline(piece.tokens) });
  }
  return { nodes };
}

function parseBlock(
  kind: 'if' | 'with' | 'range',
  tokens: readonly Token[],
  reader: PieceReader,
): TemplateNode {
  const pipeline = parsePipeline(tokens);
  const { nodes: body, ending } = parseList(reader);
  if (ending === undefined) throw new Error('unexpected EOF: {{end}} is missing');
  if (ending.word === 'end') return { kind, pipeline, body, otherwise: [] };
  const [next, ...rest] = ending.rest;
  if (next?.kind === 'word' && (next.text === 'if' || next.text === 'with'))
    return { kind, pipeline, body, otherwise: [parseBlock(next.text, rest, reader)] };
  const other = parseList(reader);
  if (other.ending?.word !== 'end') throw new Error('unexpected EOF: {{end}} is missing');
  return { kind, pipeline, body, otherwise: other.nodes };
}

function parsePipeline(tokens: readonly Token[]): Pipeline {
  const { pipeline, next } = parseStages(tokens, 0);
  if (next < tokens.length) throw new Error(`unexpected ${describe(tokens[next] as Token)} in action`);
  return pipeline;
}

function parseStages(tokens: readonly Token[], start: number): { pipeline: Pipeline; next: number } {
  const { assigns, isDeclaration, next: first } = parseAssignment(tokens, start);
  const stages: Stage[] = [];
  let stage: Operand[] = [];
  let position = first;
  const endStage = () => {
    if (stage.length === 0) throw new Error('missing value for command');
    stages.push(stage);
    stage = [];
  };
  for (; position < tokens.length; position++) {
    const token = tokens[position] as Token;
    if (isSymbol(token, ')')) break;
    if (isSymbol(token, '|')) endStage();
    else if (isSymbol(token, '(')) {
      const inner = parseStages(tokens, position + 1);
      if (!isSymbol(tokens[inner.next], ')')) throw new Error('unclosed left paren');
      position = inner.next;
      const chain = tokens[position + 1];
      if (chain?.kind === 'chain') position++;
      stage.push({
        kind: 'pipeline',
        pipeline: inner.pipeline,
        path: chain?.kind === 'chain' ? chain.path : [],
      });
    } else stage.push(parseOperand(token));
  }
  endStage();
  return { pipeline: { stages, ...(assigns && { assigns, isDeclaration }) }, next: position };
}

/** "$x := ", "$i, $x := ". */
function parseAssignment(
  tokens: readonly Token[],
  start: number,
): { assigns?: string[]; isDeclaration: boolean; next: number } {
  const names: string[] = [];
  let position = start;
  for (;;) {
    const variable = tokens[position];
    const symbol = tokens[position + 1];
    if (variable?.kind !== 'variable' || variable.path.length > 0 || symbol?.kind !== 'symbol') break;
    if (symbol.text !== ',' && symbol.text !== ':=' && symbol.text !== '=') break;
    names.push(variable.name);
    position += 2;
    if (symbol.text !== ',') return { assigns: names, isDeclaration: symbol.text === ':=', next: position };
  }
  return { isDeclaration: false, next: start };
}

function parseOperand(token: Token): Operand {
  switch (token.kind) {
    case 'field':
    case 'variable':
      return token;
    case 'string':
    case 'number':
      return { kind: 'literal', value: token.value };
    case 'word':
      if (token.text === 'true' || token.text === 'false')
        return { kind: 'literal', value: token.text === 'true' };
      if (token.text === 'nil') return { kind: 'literal', value: null };
      return { kind: 'function', name: token.text };
    default:
      throw new Error(`unexpected ${describe(token)} in operand`);
  }
}

function isSymbol(token: Token | undefined, text: string): boolean {
  return token?.kind === 'symbol' && token.text === text;
}

function describe(token: Token): string {
  return token.kind === 'symbol' || token.kind === 'word' ? `"${token.text}"` : token.kind;
}
