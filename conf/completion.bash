# Completion for `python -m train` and `python -m analyze` in bash: groups, games, methods, keys and values.
# Load it with `source conf/completion.bash`.

_nrmap_complete() {
    local line=${COMP_LINE:0:COMP_POINT} word="" typed choices
    local -a words
    read -ra words <<< "$line"
    if [[ ${words[1]} != -m || (${words[2]} != train && ${words[2]} != analyze) ]]; then
        return # of another use of python we know nothing
    fi
    if [[ $line == *[[:space:]] ]]; then
        words+=("")
    fi
    ((${#words[@]} > 3)) || return
    word=${words[-1]}
    choices=$("${words[0]/#\~/$HOME}" -m conf.completion "${words[@]:2}" 2> /dev/null) || return
    [[ -n $choices ]] || return
    mapfile -t COMPREPLY <<< "$choices"
    # A choice that ends in = or . goes on; any other is followed by a space.
    if ((${#COMPREPLY[@]} == 1)) && [[ ${COMPREPLY[0]} != *[=./] ]]; then
        COMPREPLY[0]+=" "
    fi
    # Where = breaks words, bash replaces only what is behind it.
    if [[ $COMP_WORDBREAKS == *=* && $word == *=* ]]; then
        typed=${word%"${word##*=}"}
        COMPREPLY=("${COMPREPLY[@]#"$typed"}")
    fi
}

complete -o default -o nospace -F _nrmap_complete python python3
