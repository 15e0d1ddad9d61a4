import assert from 'node:assert/strict';
import { test } from 'node:test';
import { formatList } from './list-format.ts';

const list = {
  titles: { ID: 'ID', Name: 'NAME', Extra: 'EXTRA' },
  layout: '{{.ID}}\t{{.Name}}',
};
const rows = [
  { ID: '1', Name: 'a-very-long-name', Extra: 'x' },
  { ID: '2', Name: 'b', Extra: 'y' },
];

test('lists come as tables, ids, JSON lines and templates', () => {
  const format = (value: string | undefined, isQuiet = false) =>
    formatList(rows, { ...list, format: value, isQuiet });

  assert.equal(format(undefined), 'ID        NAME\n1         a-very-long-name\n2         b\n');
  assert.equal(format(undefined, true), '1\n2\n');
  assert.equal(
    format('json'),
    '{"Extra":"x","ID":"1","Name":"a-very-long-name"}\n{"Extra":"y","ID":"2","Name":"b"}\n',
  );
  assert.equal(format('{{.ID}}:{{.Extra}}'), '1:x\n2:y\n');
  assert.equal(
    format('table {{.Name}}\\t{{.Extra}}'),
    'NAME               EXTRA\na-very-long-name   x\nb                  y\n',
  );
  assert.throws(() => format('{{.Nope}}'), /can't evaluate field Nope; known are \.ID, \.Name, \.Extra/);
});
