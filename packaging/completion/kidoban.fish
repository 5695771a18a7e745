# Completion of kidoban(1) for fish: the verbs and options of src/cli/main.c, compared by tests/check_tree.py.

# The words that are neither options nor their values.
function __kidoban_words
    set -l skip 0
    for word in (commandline -opc)[2..-1]
        if test $skip = 1
            set skip 0
        else if contains -- $word -c --config
            set skip 1
        else if not string match -q -- '-*' $word
            echo $word
        end
    end
end

function __kidoban_before
    set -l words (__kidoban_words)
    test "$words" = "$argv"
end

# As many of the words as are given are the verb's.
function __kidoban_verb
    set -l words (__kidoban_words)
    set -l count (count $argv)
    test (count $words) -ge $count; and test "$words[1..$count]" = "$argv"
end

complete -c kidoban -f
complete -c kidoban -s c -l config -r -F -d 'the configuration'
complete -c kidoban -l json -d 'JSON instead of tables'
complete -c kidoban -s h -l help -d 'help'
complete -c kidoban -n '__kidoban_before' -a help -d 'all verbs'
complete -c kidoban -n '__kidoban_before' -a check -d 'is the configuration good'
complete -c kidoban -n '__kidoban_before' -a status -d 'processes, sessions, queue at a glance'
complete -c kidoban -n '__kidoban_before' -a reload -d 'read the configuration again, whole or not at all'
complete -c kidoban -n '__kidoban_before' -a upgrade -d 'let the installed program take over without refusing a connection'
complete -c kidoban -n '__kidoban_before' -a account
complete -c kidoban -n '__kidoban_before account' -a add -d 'make an account'
complete -c kidoban -n '__kidoban_verb account add' -l identity -x
complete -c kidoban -n '__kidoban_verb account add' -l password-stdin
complete -c kidoban -n '__kidoban_verb account add' -l hash-stdin
complete -c kidoban -n '__kidoban_before account' -a passwd -d 'set its password'
complete -c kidoban -n '__kidoban_verb account passwd' -l password-stdin
complete -c kidoban -n '__kidoban_before account' -a show -d 'what is known of it'
complete -c kidoban -n '__kidoban_before account' -a list -d 'all accounts'
complete -c kidoban -n '__kidoban_before account' -a identity -d 'addresses it may send as'
complete -c kidoban -n '__kidoban_before account' -a certificate -d 'client certificates it may log in with'
complete -c kidoban -n '__kidoban_before account' -a suspend -d 'cut its sessions, refuse its login, hold its mail'
complete -c kidoban -n '__kidoban_verb account suspend' -l reason -x
complete -c kidoban -n '__kidoban_before account' -a resume -d 'undo that'
complete -c kidoban -n '__kidoban_before account' -a remove -d 'delete it'
complete -c kidoban -n '__kidoban_before account' -a import -d 'many accounts with their hashes, a JSON object a line'
complete -c kidoban -n '__kidoban_before' -a app-password
complete -c kidoban -n '__kidoban_before app-password' -a add -d 'a password for one device; printed once'
complete -c kidoban -n '__kidoban_before app-password' -a list -d 'its app passwords and when they were last used'
complete -c kidoban -n '__kidoban_before app-password' -a revoke -d 'void one'
complete -c kidoban -n '__kidoban_before' -a limits -d 'how much an account has used, and when it is free again'
complete -c kidoban -n '__kidoban_before' -a audit -d 'who suspended whom, what was changed of the gate, and why; the newest last'
complete -c kidoban -n '__kidoban_verb audit' -l account -x
complete -c kidoban -n '__kidoban_verb audit' -l count -x
complete -c kidoban -n '__kidoban_before' -a queue
complete -c kidoban -n '__kidoban_before queue' -a list -d 'messages that wait'
complete -c kidoban -n '__kidoban_verb queue list' -l account -x
complete -c kidoban -n '__kidoban_verb queue list' -l domain -x
complete -c kidoban -n '__kidoban_before queue' -a show -d 'one message: recipients, attempts, when next'
complete -c kidoban -n '__kidoban_before queue' -a hold -d 'do not deliver'
complete -c kidoban -n '__kidoban_verb queue hold' -l account -x
complete -c kidoban -n '__kidoban_verb queue hold' -l domain -x
complete -c kidoban -n '__kidoban_before queue' -a release -d 'deliver after all'
complete -c kidoban -n '__kidoban_verb queue release' -l account -x
complete -c kidoban -n '__kidoban_verb queue release' -l domain -x
complete -c kidoban -n '__kidoban_before queue' -a retry -d 'try now'
complete -c kidoban -n '__kidoban_verb queue retry' -l account -x
complete -c kidoban -n '__kidoban_verb queue retry' -l domain -x
complete -c kidoban -n '__kidoban_before queue' -a remove -d 'delete without a bounce'
complete -c kidoban -n '__kidoban_verb queue remove' -l account -x
complete -c kidoban -n '__kidoban_verb queue remove' -l domain -x
complete -c kidoban -n '__kidoban_before' -a trace -d 'everything that happened to it, and what is next'
complete -c kidoban -n '__kidoban_before' -a spool
complete -c kidoban -n '__kidoban_before spool' -a verify -d 'check every checksum; the daemon may be down'
complete -c kidoban -n '__kidoban_before spool' -a export -d 'write the queue as .eml and .json files'
complete -c kidoban -n '__kidoban_verb spool export' -l to -r -a '(__fish_complete_directories)'
complete -c kidoban -n '__kidoban_before' -a gate
complete -c kidoban -n '__kidoban_before gate' -a status -d 'interfaces, policy and counters of the gate'
complete -c kidoban -n '__kidoban_before gate' -a detach -d 'open the gate: take the programs from all interfaces'
complete -c kidoban -n '__kidoban_verb gate detach' -l reason -x
complete -c kidoban -n '__kidoban_before gate' -a attach -d 'shut it again'
complete -c kidoban -n '__kidoban_verb gate attach' -l reason -x
complete -c kidoban -n '__kidoban_before gate' -a top -d 'who is refused just now, the fastest first'
complete -c kidoban -n '__kidoban_verb gate top' -l once
complete -c kidoban -n '__kidoban_verb gate top' -l count -x
complete -c kidoban -n '__kidoban_before gate' -a impact -d 'whom the gate cuts off, where they send, what to tell them'
complete -c kidoban -n '__kidoban_verb gate impact' -l days -x
complete -c kidoban -n '__kidoban_verb gate impact' -l count -x
complete -c kidoban -n '__kidoban_verb gate impact' -l lang -x -a 'ja en'
complete -c kidoban -n '__kidoban_verb gate impact' -l no-names
complete -c kidoban -n '__kidoban_verb gate impact' -l csv
complete -c kidoban -n '__kidoban_before gate' -a test -d 'what becomes of a packet, and by which rule'
complete -c kidoban -n '__kidoban_verb gate test' -l from -x
complete -c kidoban -n '__kidoban_verb gate test' -l to -x
complete -c kidoban -n '__kidoban_verb gate test' -l port -x
complete -c kidoban -n '__kidoban_verb gate test' -l source-port -x
complete -c kidoban -n '__kidoban_verb gate test' -l side -x -a 'subscriber uplink'
complete -c kidoban -n '__kidoban_before gate' -a replay -d 'judge every packet of a capture, a JSON line each'
complete -c kidoban -n '__kidoban_verb gate replay' -l pcap -r -F
complete -c kidoban -n '__kidoban_verb gate replay' -l side -x -a 'subscriber uplink'
complete -c kidoban -n '__kidoban_verb gate replay' -l engine -x
complete -c kidoban -n '__kidoban_before gate' -a exempt -d 'let an address through, perhaps until a time'
complete -c kidoban -n '__kidoban_before gate exempt' -a 'add list remove'
complete -c kidoban -n '__kidoban_verb gate exempt' -l until -x
complete -c kidoban -n '__kidoban_verb gate exempt' -l reason -x
complete -c kidoban -n '__kidoban_verb gate exempt' -l by -x
complete -c kidoban -n '__kidoban_before gate' -a mode -d 'refuse, or only count'
complete -c kidoban -n '__kidoban_before gate mode' -a 'enforce monitor'
complete -c kidoban -n '__kidoban_verb gate mode' -l class -x
complete -c kidoban -n '__kidoban_verb gate mode' -l reason -x
complete -c kidoban -n '__kidoban_verb gate mode' -l by -x
complete -c kidoban -n '__kidoban_before gate' -a diff -d 'which packets another configuration would judge otherwise'
complete -c kidoban -n '__kidoban_verb gate diff' -l pcap -r -F
complete -c kidoban -n '__kidoban_verb gate diff' -l side -x -a 'subscriber uplink'
complete -c kidoban -n '__kidoban_before' -a export -d 'the policy of the gate for other routers'
complete -c kidoban -n '__kidoban_verb export' -l budget -x
complete -c kidoban -n '__kidoban_verb export' -l follow
complete -c kidoban -n '__kidoban_before export' -a 'nft flowspec junos iosxr routeros'
complete -c kidoban -n '__kidoban_before' -a version -d 'which version this is'
complete -c kidoban -n '__kidoban_before account identity' -a 'add remove'
complete -c kidoban -n '__kidoban_before account certificate' -a 'add remove'
complete -c kidoban -n '__kidoban_verb check' -F
complete -c kidoban -n '__kidoban_before account import' -F
complete -c kidoban -n '__kidoban_verb gate diff' -F
complete -c kidoban -n '__kidoban_verb spool verify' -a '(__fish_complete_directories)'
complete -c kidoban -n '__kidoban_verb spool export' -a '(__fish_complete_directories)'
