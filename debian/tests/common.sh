# What the tests share. Every step says what it looks at; the first that is not so ends the test.

set -eu

UNIT=azure-proxy-agent.service
TOKEN='/metadata/identity/oauth2/token?api-version=2018-02-01&resource=https%3A%2F%2Fmanagement.azure.com%2F'
INSTANCE='/metadata/instance?api-version=2021-02-01'

step() {
    echo "- $*"
}

fail() {
    echo "FAIL: $*"
    exit 1
}

# expect WHAT WANTED SEEN
expect() {
    [ "$2" = "$3" ] || fail "$1: wanted '$2', got '$3'"
}

# waitfor SECONDS COMMAND...: until it succeeds
waitfor() {
    deadline=$(($(date +%s) + $1))
    shift
    until "$@" > /dev/null 2>&1; do
        [ "$(date +%s)" -lt "$deadline" ] || fail "waited too long for: $*"
        sleep 0.2
    done
}

main_pid() {
    systemctl show --property MainPID --value "$UNIT"
}

listens() {
    ss -Hltn 'sport = :3080' | grep -q 127.0.0.1:3080
}

# status of a request, 000 when there was no answer
ask() {
    curl --silent --max-time 20 --output /dev/null --write-out '%{http_code}' -H 'Metadata: true' "$@" || true
}

# the same for a user who is not root
ask_as_nobody() {
    setpriv --reuid 65534 --regid 65534 --clear-groups curl --silent --max-time 20 --output /dev/null \
        --write-out '%{http_code}' -H 'Metadata: true' "$@" || true
}

# how many links to cgroups the agent holds
links() {
    grep -ls 'link_type:.cgroup' "/proc/$(main_pid)/fdinfo/"* | wc -l
}
