// Cuts a Go template into text and actions, and an action into tokens. Pure.

export type Token =
  | { readonly kind: 'field'; readonly path: readonly string[] }
  | { readonly kind: 'variable'; readonly name: string; readonly path: readonly string[] }
  | { readonly kind: 'word'; readonly text: string }
  | { readonly kind: 'string'; readonly value: string }
  | { readonly kind: 'number'; readonly value: number }
  | { readonly kind: 'symbol'; readonly text: '|' | '(' | ')' | ':=' | '=' | ',' }
  /** A field behind a closing parenthesis: "(index .A 0).B". */
  | { readonly kind: 'chain'; readonly path: readonly string[] };

export type Piece =
  | { readonly kind: 'text'; readonly text: string }
  | { readonly kind: 'action'; readonly tokens: readonly Token[] };

const TRIM_LEFT = /^\{\{- /;

/** Throws an Error on what is no template. */
export function lexTemplate(source: string): Piece[] {
  const pieces: Piece[] = [];
  let position = 0;
  let trimsNext = false;
  while (position < source.length) {
    const open = source.indexOf('{{', position);
    let text = source.slice(position, open < 0 ? undefined : open);
    if (trimsNext) text = text.trimStart();
    if (open < 0) {
      if (text !== '') pieces.push({ kind: 'text', text });
      break;
    }
    const trimsBefore =
      TRIM_LEFT.test(source.slice(open, open + 4)) || /^\{\{-[\n\t]/.test(source.slice(open, open + 4));
    if (trimsBefore) text = text.trimEnd();
    if (text !== '') pieces.push({ kind: 'text', text });
    const start = open + (trimsBefore ? 3 : 2);
    const { body, next, trimsAfter } = readAction(source, start);
    trimsNext = trimsAfter;
    if (!/^\s*\/\*/.test(body)) pieces.push({ kind: 'action', tokens: lexAction(body) });
    position = next;
  }
  return pieces;
}

/** Finds the end of an action, not inside its strings. */
function readAction(source: string, start: number): { body: string; next: number; trimsAfter: boolean } {
  let quote = '';
  for (let index = start; index < source.length; index++) {
    const character = source[index] as string;
    if (quote !== '') {
      if (character === '\\' && quote !== '`') index++;
      else if (character === quote) quote = '';
    } else if ('"`\''.includes(character)) quote = character;
    else if (source.startsWith('}}', index)) {
      const body = source.slice(start, index);
      const trimsAfter = /\s-$/.test(body);
      return { body: trimsAfter ? body.slice(0, -1) : body, next: index + 2, trimsAfter };
    }
  }
  throw new Error(quote === '' ? 'unclosed action' : 'unterminated quoted string');
}

const TOKEN =
  /(\s+)|(\.[\p{L}_][\p{L}\p{N}_]*(?:\.[\p{L}_][\p{L}\p{N}_]*)*)|(\.(?![\p{L}\p{N}_]))|(\$[\p{L}\p{N}_]*)((?:\.[\p{L}_][\p{L}\p{N}_]*)*)|([+-]?(?:0x[\da-f]+|\d+(?:\.\d+)?(?:e[+-]?\d+)?))|([\p{L}_][\p{L}\p{N}_]*)|("(?:[^"\\]|\\.)*")|(`[^`]*`)|(:=|[|()=,])/uy;

function lexAction(body: string): Token[] {
  const tokens: Token[] = [];
  TOKEN.lastIndex = 0;
  while (TOKEN.lastIndex < body.length) {
    const at = TOKEN.lastIndex;
    const match = TOKEN.exec(body);
    if (match === null) throw new Error(`unexpected ${JSON.stringify(body[at])} in action`);
    const token = toToken(match, body[at - 1] === ')');
    if (token !== undefined) tokens.push(token);
  }
  return tokens;
}

function toToken(match: RegExpExecArray, isChained: boolean): Token | undefined {
  const [, blank, field, dot, variable, variablePath = '', number, word, quoted, raw, symbol] = match;
  if (blank !== undefined) return undefined;
  if (field !== undefined) return { kind: isChained ? 'chain' : 'field', path: field.slice(1).split('.') };
  if (dot !== undefined) return { kind: 'field', path: [] };
  if (variable !== undefined)
    return { kind: 'variable', name: variable, path: variablePath.split('.').slice(1) };
  if (number !== undefined) return { kind: 'number', value: Number(number) };
  if (word !== undefined) return { kind: 'word', text: word };
  if (quoted !== undefined) return { kind: 'string', value: unquote(quoted) };
  if (raw !== undefined) return { kind: 'string', value: raw.slice(1, -1) };
  return { kind: 'symbol', text: symbol as Extract<Token, { kind: 'symbol' }>['text'] };
}

const ESCAPES: Readonly<Record<string, string>> = {
  n: '\n',
  t: '\t',
  r: '\r',
  '\\': '\\',
  '"': '"',
  "'": "'",
};

function unquote(quoted: string): string {
  return quoted.slice(1, -1).replace(/\\(x[\da-fA-F]{2}|u[\da-fA-F]{4}|.)/gs, (_, code: string) => {
    const plain = ESCAPES[code];
    if (plain !== undefined) return plain;
    if (code.length > 1) return String.fromCodePoint(Number.parseInt(code.slice(1), 16));
    throw new Error(`unknown escape \\${code} in a string`);
  });
}
