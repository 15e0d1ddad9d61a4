// Small texts inside flags: shell words, CSV fields, KEY=VALUE.

/** Splits as a shell does: blanks outside quotes separate, a backslash takes the next character as it is. */
export function splitShellWords(text: string): string[] {
  const words: string[] = [];
  let word: string | undefined;
  let quote = '';
  for (let index = 0; index < text.length; index++) {
    const character = text[index] as string;
    if (character === '\\' && quote !== "'") {
      const next = text[++index];
      if (next === undefined) throw new Error('ends in a lone backslash');
      const isLiteral = quote === '"' && !'"\\$`'.includes(next);
      word = (word ?? '') + (isLiteral ? `\\${next}` : next);
    } else if (quote !== '') {
      if (character === quote) quote = '';
      else word = (word ?? '') + character;
    } else if (character === '"' || character === "'") {
      quote = character;
      word ??= '';
    } else if (/\s/.test(character)) {
      if (word !== undefined) words.push(word);
      word = undefined;
    } else word = (word ?? '') + character;
  }
  if (quote !== '') throw new Error(`has an unclosed ${quote}`);
  if (word !== undefined) words.push(word);
  return words;
}

/** One line of CSV; a field in double quotes may hold commas, and quotes written twice. */
export function splitCsv(text: string): string[] {
  const fields: string[] = [];
  let position = 0;
  for (;;) {
    let field = '';
    if (text[position] === '"') {
      for (position++; ; position++) {
        if (position >= text.length) throw new Error('has an unclosed "');
        if (text[position] !== '"') field += text[position];
        else if (text[position + 1] === '"') field += text[position++];
        else break;
      }
      position++;
      if (position < text.length && text[position] !== ',') throw new Error('has text behind a closing "');
    } else {
      const comma = text.indexOf(',', position);
      field = text.slice(position, comma < 0 ? undefined : comma);
      if (field.includes('"')) throw new Error('has a " inside a field; put the whole field in quotes');
      position = comma < 0 ? text.length : comma;
    }
    fields.push(field);
    if (position >= text.length) return fields;
    position++;
  }
}

/** "KEY=VALUE" in two; the value is undefined without "=". */
export function splitKeyValue(text: string): { key: string; value: string | undefined } {
  const equals = text.indexOf('=');
  if (equals < 0) return { key: text, value: undefined };
  return { key: text.slice(0, equals), value: text.slice(equals + 1) };
}

/** A label: "KEY=VALUE", or "KEY" for an empty value. */
export function parseLabel(text: string): readonly [string, string] {
  const { key, value = '' } = splitKeyValue(text);
  if (key.trim() === '') throw new Error('a label needs a name: NAME=VALUE');
  return [key, value];
}
