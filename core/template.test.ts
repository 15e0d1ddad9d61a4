import assert from 'node:assert/strict';
import { test } from 'node:test';
import { compileTemplate } from './template.ts';

const data = {
  ID: 'abc',
  Name: 'web',
  Count: 3,
  Zero: 0,
  Empty: '',
  Ok: true,
  Ports: [80, 443],
  Labels: { b: '2', a: '1' },
  Spec: { Mode: { Replicas: 2 }, Items: [{ Name: 'x' }, { Name: 'y' }] },
};

const cases: readonly (readonly [string, string])[] = [
  ['{{.Name}}', 'web'],
  ['{{ .Name }}-{{.ID}}', 'web-abc'],
  ['{{.Spec.Mode.Replicas}}', '2'],
  ['{{$.Name}}', 'web'],
  ['{{json .Labels}}', '{"b":"2","a":"1"}'],
  ['{{json .Missing}}', 'null'],
  ['{{.Missing}}', '<no value>'],
  ['{{.Missing.Deeper}}', '<no value>'],
  ['{{.Ports}}', '[80 443]'],
  ['{{.Labels}}', 'map[a:1 b:2]'],
  ['{{.Ok}} {{true}}', 'true true'],
  ['{{upper .Name}} {{.Name | upper}} {{.Name | printf "%-5s|"}}', 'WEB WEB web  |'],
  ['{{lower "ABC"}} {{title "ab cd"}}', 'abc Ab Cd'],
  ['{{split "a,b" ","}} {{join (split "a,b" ",") "+"}}', '[a b] a+b'],
  ['{{pad .Name 1 2}}|', ' web  |'],
  ['{{truncate .Name 2}}', 'we'],
  ['{{println .Name 1}}', 'web 1\n'],
  ['{{printf "%s %d %q %05d %.2f %v%%" .Name .Count .ID 7 1.5 .Ok}}', 'web 3 "abc" 00007 1.50 true%'],
  ['{{len .Ports}} {{len .Name}} {{len .Labels}}', '2 3 2'],
  ['{{index .Ports 1}} {{index .Labels "a"}}', '443 1'],
  ['{{(index .Spec.Items 1).Name}}', 'y'],
  ['{{if .Ok}}yes{{else}}no{{end}}', 'yes'],
  ['{{if .Zero}}a{{else if .Empty}}b{{else}}c{{end}}', 'c'],
  ['{{if and .Ok (eq .Count 3)}}both{{end}}', 'both'],
  ['{{if or .Zero .Empty}}one{{else}}none{{end}}', 'none'],
  ['{{or .Empty "fallback"}} {{and .Ok .Name}}', 'fallback web'],
  ['{{not .Zero}} {{ne 1 2}} {{lt 1 2}} {{gt 1 2}} {{le 2 2}} {{ge 1 2}}', 'true true true false true false'],
  ['{{eq .Name "api" "web"}}', 'true'],
  ['{{range .Ports}}<{{.}}>{{end}}', '<80><443>'],
  ['{{range $i, $p := .Ports}}{{$i}}={{$p}};{{end}}', '0=80;1=443;'],
  ['{{range $k, $v := .Labels}}{{$k}}{{$v}} {{end}}', 'a1 b2 '],
  ['{{range .Missing}}x{{else}}none{{end}}', 'none'],
  ['{{range .Spec.Items}}{{.Name}}{{$.Name}} {{end}}', 'xweb yweb '],
  ['{{with .Spec.Mode}}{{.Replicas}}{{end}}', '2'],
  ['{{with .Empty}}a{{else}}b{{end}}', 'b'],
  ['{{$n := .Name}}{{$n}}{{if .Ok}}{{$n = "other"}}{{end}}{{$n}}', 'webother'],
  ['a  {{- .Name -}}  b', 'awebb'],
  ['{{/* comment */}}x', 'x'],
  ['{{`raw "x"`}} {{"tab\\t"}}|', 'raw "x" tab\t|'],
  ['{{"}}"}}', '}}'],
  ['{{-1}} {{1.5}} {{0x10}}', '-1 1.5 16'],
  ['{{print "a" 1 2 "b"}}', 'a1 2b'],
  ['plain', 'plain'],
];

for (const [source, expected] of cases)
  test(`template ${JSON.stringify(source)}`, () => {
    assert.equal(compileTemplate(source)(data), expected);
  });

for (const source of [
  '{{',
  '{{.Name',
  '{{if .Ok}}',
  '{{end}}',
  '{{else}}',
  '{{"open}}',
  '{{nosuch .Name}}',
  '{{.Name 1}}',
  '{{.Name | }}',
  '{{(.Name}}',
  '{{$undefined}}',
  '{{index .Ports 9}}',
  '{{lt 1 "a"}}',
  '{{.Name.Deeper}}',
  '{{#}}',
])
  test(`template ${JSON.stringify(source)} is refused`, () => {
    assert.throws(() => compileTemplate(source)(data), Error);
  });
