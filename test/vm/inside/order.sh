# Where the unit stands in the order of a boot. Sourced.

within 120 sh -c 'systemctl is-system-running | grep -E "running|degraded"'
before_network() {
    agent=$(monotonic $UNIT ActiveEnterTimestampMonotonic)
    network=$(monotonic network-pre.target ActiveEnterTimestampMonotonic)
    echo "agent $agent, network-pre.target $network"
    [ "$agent" -gt 0 ] && [ "$network" -gt 0 ] && [ "$agent" -le "$network" ]
}
check 'it is up before network-pre.target' before_network
chain() {
    systemd-analyze critical-chain network-pre.target --no-pager | grep -q $UNIT || {
        systemd-analyze critical-chain network-pre.target --no-pager
        return 1
    }
}
check 'systemd-analyze shows it on the way to the network' chain
cycles() {
    ! journalctl -b --no-pager _PID=1 | grep -iE 'ordering cycle|breaking'
}
check 'no ordering cycle' cycles
tell 'systemd-analyze' "$(systemd-analyze time | head -1)"
userspace=$(systemctl show --property UserspaceTimestampMonotonic --value)
tell 'hundredths of a second from the start of userspace to the unit being active' "$((($(monotonic $UNIT ActiveEnterTimestampMonotonic) - userspace) / 10000))"
