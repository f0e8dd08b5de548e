#!/usr/bin/env bash
# Publishes a run with nothing but bash: the NATS text protocol over /dev/tcp.
#
#   examples/publish.sh [--follow] [HOST:PORT] [JSON]
#
# Prints the stored sequence (the receipt's number), then the verdict; with --follow also the run's events until it ended.
# Exit code 0 if the run was accepted (with --follow: completed), else 1. NAMESPACE and KEY (idempotency) come from the
# environment.
set -euo pipefail
# Lengths are bytes.
export LC_ALL=C

follow=
if [ "${1:-}" = --follow ]; then follow=1 && shift; fi
address=${1:-127.0.0.1:8732}
body=${2:-'{"v":1,"definition":{"version":1,"name":"hello","workspace":{"mode":"none"},"steps":[{"id":"greet","shell":"echo hello"}]}}'}
namespace=${NAMESPACE:-default}
key=${KEY:-}
inbox="_INBOX.publish.$$.$RANDOM$RANDOM"

exec 3<>"/dev/tcp/${address%:*}/${address##*:}"
send() { printf '%s\r\n' "$@" >&3; }

# Reads until a message is there: sets subject, and payload without headers. Answers the server's pings meanwhile.
next_message() {
    local line words total head=0
    while IFS= read -r -t 30 line <&3; do
        line=${line%$'\r'}
        read -ra words <<<"$line"
        case ${words[0]:-} in
        PING) send PONG ;;
        -ERR) echo "the server says: $line" >&2 && exit 1 ;;
        MSG | HMSG)
            subject=${words[1]}
            total=${words[-1]}
            [ "${words[0]}" = MSG ] || head=${words[-2]}
            # The payload and the line end behind it.
            IFS= read -r -d '' -N "$((total + 2))" payload <&3
            payload=${payload:head:total-head}
            return
            ;;
        esac
    done
    echo "no answer from $address within 30 s" >&2
    exit 1
}

# The value of a plain string or number of flat JSON; enough for what is read here.
json() { sed -n "s/.*\"$2\" *: *\"\{0,1\}\([^\",}]*\).*/\1/p" <<<"$1" | head -n 1; }

IFS= read -r -t 10 info <&3
case $info in INFO*) ;; *) echo "$address is no NATS server" >&2 && exit 1 ;; esac
send 'CONNECT {"verbose":false,"pedantic":false,"headers":true,"lang":"bash","version":"1","name":"publish.sh"}'
# Subscribed before publishing, so that no verdict and no event can be missed.
send "SUB $inbox 1" "SUB hopyard.receipt.$namespace.* 2"
[ -z "$follow" ] || send "SUB hopyard.event.$namespace.* 3"

subject_out="hopyard.cmd.submit.$namespace"
if [ -n "$key" ]; then
    # NATS/1.0, CR, LF; the header, CR, LF; CR, LF.
    header="NATS/1.0"$'\r\n'"Hopyard-Idempotency-Key: $key"$'\r\n\r\n'
    printf 'HPUB %s %s %d %d\r\n%s%s\r\n' "$subject_out" "$inbox" "${#header}" "$((${#header} + ${#body}))" "$header" "$body" >&3
else
    printf 'PUB %s %s %d\r\n%s\r\n' "$subject_out" "$inbox" "${#body}" "$body" >&3
fi

sequence=
verdict=
declare -A receipts=()
events=()
while [ -z "$verdict" ]; do
    next_message
    case $subject in
    "$inbox")
        sequence=$(json "$payload" seq)
        [ -n "$sequence" ] || { echo "not stored: $payload" >&2 && exit 1; }
        echo "stored as $sequence"
        ;;
    hopyard.receipt.*) receipts[${subject##*.}]=$payload ;;
    hopyard.event.*) events+=("$payload") ;;
    esac
    [ -z "$sequence" ] || verdict=${receipts[$sequence]:-}
done
echo "$verdict"
case $verdict in *'"status":"rejected"'*) exit 1 ;; esac
[ -n "$follow" ] || exit 0

run=$(json "$verdict" run_id)
index=0
while :; do
    if [ "$index" -lt "${#events[@]}" ]; then
        payload=${events[index]}
        index=$((index + 1))
    else
        next_message
    fi
    case $payload in *"\"run_id\":\"$run\""*) ;; *) continue ;; esac
    echo "$payload"
    case $payload in
    *'"type":"run.completed"'*) exit 0 ;;
    *'"type":"run.failed"'* | *'"type":"run.killed"'*) exit 1 ;;
    esac
done
