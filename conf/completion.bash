# Completion for `python -m train` and `python -m analyze` in bash: groups, games, methods, keys and values.
# Load it with `source conf/completion.bash`.

_nrmap_complete() {
    local line=${COMP_LINE:0:COMP_POINT} word="" typed choice choices
    local -a words
    read -ra words <<< "$line"
    if [[ ${words[1]} != -m || (${words[2]} != train && ${words[2]} != analyze) ]]; then
        return # not a command of this project
    fi
    if [[ $line == *[[:space:]] ]]; then
        words+=("")
    fi
    ((${#words[@]} > 3)) || return
    word=${words[${#words[@]} - 1]}
    choices=$("${words[0]/#\~/$HOME}" -m conf.completion "${words[@]:2}" 2> /dev/null) || return
    [[ -n $choices ]] || return
    COMPREPLY=() # without mapfile, for the bash 3.2 of macOS
    while IFS= read -r choice; do
        COMPREPLY+=("$choice")
    done <<< "$choices"
    # A choice that ends in = or . continues; any other is followed by a space.
    if ((${#COMPREPLY[@]} == 1)) && [[ ${COMPREPLY[0]} != *[=./] ]]; then
        COMPREPLY[0]+=" "
    fi
    # Where = breaks words, bash replaces only the text after it.
    if [[ $COMP_WORDBREAKS == *=* && $word == *=* ]]; then
        typed=${word%"${word##*=}"}
        COMPREPLY=("${COMPREPLY[@]#"$typed"}")
    fi
}

complete -o default -o nospace -F _nrmap_complete python python3
