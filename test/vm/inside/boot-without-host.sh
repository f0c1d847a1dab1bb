# A boot on a machine that is no Azure machine: the agent waits, quietly.

. /vm/inside/order.sh
check 'it is active' systemctl is-active -q $UNIT
before=$(wc -l < /var/log/azure-proxy-agent/ProxyAgent.log)
journal_before=$(journalctl -b -u $UNIT --no-pager -q | wc -l)
sleep 60
tell 'lines in ProxyAgent.log after the boot' "$before"
tell 'lines in the journal after the boot' "$journal_before"
more=$(($(wc -l < /var/log/azure-proxy-agent/ProxyAgent.log) - before))
journal_more=$(($(journalctl -b -u $UNIT --no-pager -q | wc -l) - journal_before))
quiet() {
    echo "log: $more more lines, journal: $journal_more more lines in a minute"
    [ "$more" -le 10 ] && [ "$journal_more" -le 5 ] || {
        tail -12 /var/log/azure-proxy-agent/ProxyAgent.log
        return 1
    }
}
check 'a minute later it has said no more than ten lines, and five in the journal' quiet
tell 'lines of that minute' "log $more, journal $journal_more"
not_finished() {
    azure-proxy-agent --status > /tmp/status.log
    same 1 $?
}
check '--status says that it is not finished' not_finished
check 'nothing failed in this boot because of it' systemctl is-active -q multi-user.target
memory() {
    systemctl show -p MemoryCurrent --value $UNIT | awk '{ printf /^[0-9]/ ? "%.0f MB in its cgroup" : "not counted by its cgroup", $1 / 1e6 }'
}
tell 'memory' "$(memory), $(awk '/^VmRSS/ { print $2 / 1000 " MB resident" }' "/proc/$(main_pid)/status")"
