# Functions for scripts that run inside a machine. Sourced; POSIX shell.

. /vm/common.sh
set +eu

RESULTS=/dev/ttyS1
export PATH=/usr/sbin:/usr/bin:/sbin:/bin DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8
stty -F $RESULTS raw -echo 2> /dev/null

seconds() {
    awk '{ printf "%.1f", $1 }' /proc/uptime
}

# of a second, since boot
hundredths() {
    awk '{ printf "%d", $1 * 100 }' /proc/uptime
}

# monotonic UNIT PROPERTY: a time stamp of systemd's, in microseconds since boot
monotonic() {
    systemctl show --property "$2" --value "$1"
}

# result STATE SECONDS NAME DETAIL
result() {
    printf '%s\t%s\t%s\t%s\n' "$1" "$2" "$3" "$(printf '%s' "$4" | tr '\t\n' '  ' | cut -c 1-2000)" >> $RESULTS
    echo "== $1: $3 $4"
}

# check NAME COMMAND...: a line of results from its exit status and what it printed
check() {
    check_name=$1
    shift
    check_from=$(seconds)
    if "$@" > /tmp/check.log 2>&1; then
        result ok "$(echo "$(seconds) $check_from" | awk '{ printf "%.1f", $1 - $2 }')" "$check_name" ''
    else
        check_code=$?
        result FAIL "$(echo "$(seconds) $check_from" | awk '{ printf "%.1f", $1 - $2 }')" "$check_name" "exit status $check_code: $(tail -12 /tmp/check.log)"
    fi
}

# tell NAME VALUE: a number worth knowing
tell() {
    result ok 0 "$1" "$2"
}

# same WANTED SEEN
same() {
    [ "$1" = "$2" ] || {
        echo "wanted '$1', got '$2'"
        return 1
    }
}

# within SECONDS COMMAND...: until it succeeds
within() {
    within_end=$(($(hundredths) + $1 * 100))
    shift
    until "$@" > /dev/null 2>&1; do
        [ "$(hundredths)" -lt "$within_end" ] || {
            echo "not within the time: $*"
            return 1
        }
        sleep 0.1
    done
}

end() {
    sync
    echo end >> $RESULTS
}
