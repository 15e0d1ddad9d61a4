// Completion scripts. Each calls `tsswarm __complete WORDS…`, which prints a candidate per line ("value<TAB>text") and
// in its last line ":DIRECTIVE": bit 1 (2) means no blank after the word, bit 2 (4) means no file names.

const bash = `# bash completion for tsswarm: source this file
_tsswarm() {
    local out directive line cur="\${COMP_WORDS[COMP_CWORD]}"
    COMPREPLY=()
    out=$(tsswarm __complete "\${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null) || return
    directive="\${out##*:}"
    while IFS= read -r line; do
        line="\${line%%$'\\t'*}"
        [[ -n $line && $line == "$cur"* ]] && COMPREPLY+=("$line")
    done <<< "\${out%:*}"
    (( directive & 2 )) && compopt -o nospace
    (( (directive & 4) == 0 )) && (( \${#COMPREPLY[@]} == 0 )) && compopt -o default
}
complete -F _tsswarm tsswarm
`;

const zsh = `#compdef tsswarm
_tsswarm() {
    local out directive line
    local -a candidates
    out=$(tsswarm __complete "\${(@)words[2,CURRENT]}" 2>/dev/null) || return
    directive="\${out##*:}"
    for line in "\${(@f)\${out%:*}}"; do
        [[ -n $line ]] && candidates+=("\${\${line%%$'\\t'*}//:/\\\\:}:\${line#*$'\\t'}")
    done
    if (( \${#candidates} )); then
        if (( directive & 2 )); then _describe -V tsswarm candidates -S ''; else _describe -V tsswarm candidates; fi
    elif (( (directive & 4) == 0 )); then
        _files
    fi
}
compdef _tsswarm tsswarm
`;

const fish = `# fish completion for tsswarm
function __tsswarm_complete
    set -l words (commandline -opc) (commandline -ct)
    set -l out (tsswarm __complete $words[2..-1] 2>/dev/null)
    test (count $out) -gt 1; and printf '%s\\n' $out[1..-2]
end
complete -c tsswarm -f -a '(__tsswarm_complete)'
`;

export const completionScripts: Readonly<Record<string, string>> = { bash, zsh, fish };
