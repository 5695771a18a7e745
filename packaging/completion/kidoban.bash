# Completion of kidoban(1) for bash: the verbs and options of src/cli/main.c, compared by tests/check_tree.py.

declare -gA _kidoban_verbs=(
    ["check"]="--json"
    ["status"]="--json"
    ["reload"]=""
    ["upgrade"]=""
    ["account add"]="--identity --password-stdin --hash-stdin"
    ["account passwd"]="--password-stdin"
    ["account show"]="--json"
    ["account list"]="--json"
    ["account identity"]=""
    ["account certificate"]=""
    ["account suspend"]="--reason"
    ["account resume"]=""
    ["account remove"]=""
    ["account import"]="--json"
    ["app-password add"]="--json"
    ["app-password list"]="--json"
    ["app-password revoke"]=""
    ["limits"]="--json"
    ["audit"]="--account --count --json"
    ["queue list"]="--account --domain --json"
    ["queue show"]="--json"
    ["queue hold"]="--account --domain"
    ["queue release"]="--account --domain"
    ["queue retry"]="--account --domain"
    ["queue remove"]="--account --domain"
    ["trace"]="--json"
    ["spool verify"]="--json"
    ["spool export"]="--to"
    ["gate status"]="--json"
    ["gate detach"]="--reason"
    ["gate attach"]="--reason"
    ["gate top"]="--once --count --json"
    ["gate impact"]="--days --count --lang --no-names --csv --json"
    ["gate test"]="--from --to --port --source-port --side --json"
    ["gate replay"]="--pcap --side --engine"
    ["gate exempt"]="--until --reason --by --json"
    ["gate mode"]="--class --reason --by --json"
    ["gate diff"]="--pcap --side --json"
    ["export"]="--budget --follow"
    ["version"]=""
)

# The words behind the options that stand before the verb.
_kidoban_words() {
    local i
    words=()
    for ((i = 1; i < COMP_CWORD; i++)); do
        case ${COMP_WORDS[i]} in
        -c | --config) ((i++)) ;;
        -*) ;;
        *) words+=("${COMP_WORDS[i]}") ;;
        esac
    done
}

_kidoban() {
    local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD - 1]} verb words first=() second=()
    COMPREPLY=()
    case $previous in
    -c | --config) mapfile -t COMPREPLY < <(compgen -f -- "$current"); return ;;
    --to) mapfile -t COMPREPLY < <(compgen -d -- "$current"); return ;;
    --pcap) mapfile -t COMPREPLY < <(compgen -f -- "$current"); return ;;
    --side) mapfile -t COMPREPLY < <(compgen -W "subscriber uplink" -- "$current"); return ;;
    --budget | --from | --until | --by | --class | --port | --source-port | --engine | --identity | --reason | --account | --domain | --count) return ;;
    esac
    _kidoban_words
    for verb in "${!_kidoban_verbs[@]}"; do
        first+=("${verb%% *}")
        [[ ${verb%% *} == "${words[0]}" && $verb == *" "* ]] && second+=("${verb#* }")
    done
    if [[ ${#words[@]} -eq 0 && $current != -* ]]; then
        mapfile -t COMPREPLY < <(compgen -W "${first[*]} help" -- "$current" | sort -u)
    elif [[ ${#words[@]} -eq 1 && ${#second[@]} -gt 0 && $current != -* ]]; then
        mapfile -t COMPREPLY < <(compgen -W "${second[*]}" -- "$current")
    elif [[ $current == -* ]]; then
        verb=${words[0]}
        [[ ${#second[@]} -gt 0 ]] && verb="${words[0]} ${words[1]}"
        [[ -z ${words[0]} ]] && verb=
        mapfile -t COMPREPLY < <(compgen -W "-c --config --json --help ${verb:+${_kidoban_verbs[$verb]}}" -- "$current" | sort -u)
    elif [[ "${words[*]}" == "account identity" || "${words[*]}" == "account certificate" ]]; then
        mapfile -t COMPREPLY < <(compgen -W "add remove" -- "$current")
    elif [[ ${words[0]} == check || "${words[*]}" == "account import" ]]; then
        mapfile -t COMPREPLY < <(compgen -f -- "$current")
    elif [[ ${words[0]} == spool ]]; then
        mapfile -t COMPREPLY < <(compgen -d -- "$current")
    fi
}

complete -o filenames -F _kidoban kidoban
