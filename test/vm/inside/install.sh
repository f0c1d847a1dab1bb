# The package on a machine that has neither it nor libatomic: its own tests, then what happens to a running service.

tell 'the machine' "$(uname -r), systemd $(systemctl --version | awk 'NR == 1 { print $2 }'), $(. /etc/os-release && echo "$PRETTY_NAME")"
no_libatomic() {
    ! ldconfig -p | grep libatomic
}
bare_executable() {
    dpkg-deb --fsys-tarfile /vm/new.deb | tar -xO ./usr/sbin/azure-proxy-agent > /srv/bare
    chmod +x /srv/bare
    /srv/bare --version
    rm /srv/bare
}
check 'libatomic1 is not installed' no_libatomic
check 'the bare executable starts' bare_executable
check 'the package installs' dpkg -i /vm/new.deb
check 'the service comes up' within 60 listens

for name in cli service fabric; do
    check "autopkgtest $name" sh "/vm/tree/debian/tests/$name"
done
tell 'systemd-analyze security' "$(systemd-analyze security $UNIT --no-pager | tail -1)"

# How long that takes: to a listener, as clients see it; and by systemd's clock, from the end of the process to the
# start of the next, and to ready. One of a row that nothing else disturbed must take no more than five seconds.
recovers() {
    old=$(main_pid)
    from=$(hundredths)
    kill -9 "$old"
    within 15 sh -c ". /vm/lib.sh; [ \"\$(main_pid)\" != $old ] && listens" || return 1
    took="$took $(($(hundredths) - from))"
    within 15 systemctl is-active -q $UNIT || return 1
    exited=$(monotonic $UNIT ActiveExitTimestampMonotonic)
    started="$started $((($(monotonic $UNIT ExecMainStartTimestampMonotonic) - exited) / 10000))"
    ready="$ready $((($(monotonic $UNIT ActiveEnterTimestampMonotonic) - exited) / 10000))"
}
took= started= ready=
check 'killed with SIGKILL, it listens again' recovers
seven_times() {
    for _ in 1 2 3 4 5 6 7; do
        recovers || return 1
        sleep 0.3
    done
}
check 'and seven times in a row, more often than systemd lets a unit fail by default' seven_times
tell 'hundredths of a second from SIGKILL to listening' "$took"
tell 'by systemd, from the end of the process to the start of the next' "$started"
tell 'by systemd, from the end of the process to ready' "$ready"
in_time() {
    quickest=$(echo "$ready" | tr ' ' '\n' | grep . | sort -n | head -1)
    echo "$quickest hundredths"
    [ "$quickest" -le 500 ]
}
check 'ready again within five seconds, by systemd' in_time
tell 'restarts counted by systemd' "$(systemctl show --property NRestarts --value $UNIT)"

no_core() {
    [ -z "$(find / -xdev -name 'core*' -newer /vm/run.sh -type f -size +1000k 2> /dev/null)" ]
}
crash() {
    old=$(main_pid)
    kill -SEGV "$old"
    within 15 sh -c ". /vm/lib.sh; [ \"\$(main_pid)\" != $old ] && listens" || return 1
    no_core
}
check 'a crash leaves no core file' crash

bad_config() {
    cp /etc/azure/proxy-agent.json /srv/good.json
    echo '{' > /etc/azure/proxy-agent.json
    systemctl restart $UNIT
    within 20 sh -c "systemctl show -p ActiveState --value $UNIT | grep -q failed" &&
        same 78 "$(systemctl show -p ExecMainStatus --value $UNIT)" &&
        journalctl -u $UNIT --no-pager | grep -q 'Error in reading Config from Json file: /etc/azure/proxy-agent.json'
    bad=$?
    cp /srv/good.json /etc/azure/proxy-agent.json
    systemctl reset-failed $UNIT
    systemctl start $UNIT
    return $bad
}
check 'a configuration that cannot be used fails the unit once, with the reason' bad_config
check 'and it comes back once that is mended' within 60 listens

check 'removal keeps the configuration, keys and logs, and nothing in the kernel' sh -c 'apt-get -qq -y remove azure-proxy-agent && [ -e /etc/azure/proxy-agent.json ] && [ -d /var/lib/azure-proxy-agent ] && [ -d /var/log/azure-proxy-agent ] && [ ! -e /sys/fs/bpf/azure-proxy-agent ] && ! systemctl is-active -q azure-proxy-agent.service'
check 'purging does not fail' apt-get -qq -y purge azure-proxy-agent
leftovers() {
    found=$(find / -xdev \( -path /proc -o -path /sys -o -path /vm -o -path /var/cache/man \) -prune -o -name '*azure-proxy-agent*' -print
        find /etc/azure /run/azure-proxy-agent /run/systemd /sys/fs/bpf /etc/systemd -name '*proxy-agent*' 2> /dev/null)
    [ -z "$found" ] || {
        echo "$found"
        return 1
    }
}
check 'purging leaves nothing' leftovers
