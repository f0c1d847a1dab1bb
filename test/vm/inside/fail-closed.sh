# failClosed under the real unit: what the service leaves to its next process, and what the package removes.

PINS=/sys/fs/bpf/azure-proxy-agent
told() {
    grep "$1" /var/log/azure-proxy-agent/ProxyAgent.log || {
        grep -E 'fail closed|Attached|redirector' /var/log/azure-proxy-agent/ProxyAgent.log | tail -4
        return 1
    }
}
kept() {
    within 20 sh -c "[ \"\$(systemctl show -p NFileDescriptorStore --value $UNIT)\" = 1 ]"
}
starts() {
    dpkg -i /vm/new.deb && sed -i '0,/{/s//{ "failClosed": true,/' /etc/azure/proxy-agent.json && systemctl restart $UNIT &&
        within 60 listens && { within 20 test -e $PINS/apa_connect4 || told 'stays when the agent ends'; } && kept
}
check 'with failClosed the service pins its programs and leaves its listener with systemd' starts

from=
recovers() {
    old=$(main_pid)
    from=$(hundredths)
    kill -9 "$old"
    within 15 sh -c ". /vm/lib.sh; [ \"\$(main_pid)\" != $old ]" && listens &&
        within 20 told 'taken over from an earlier agent: links and maps' && kept
}
check 'killed with SIGKILL, it takes over what was left' recovers
tell 'hundredths of a second from SIGKILL to taken over' "$(($(hundredths) - from))"

stays_shut() {
    systemctl stop $UNIT
    test -e $PINS/apa_connect4 && ! listens
}
check 'a stop leaves the programs in the kernel, and nobody listens' stays_shut
opens() {
    azure-proxy-agent cleanup && [ ! -e $PINS ] && systemctl start $UNIT && within 60 test -e $PINS/apa_connect4 &&
        ! azure-proxy-agent cleanup && test -e $PINS/apa_connect4
}
check 'cleanup ends that, and does nothing while the service runs' opens
removal() {
    apt-get -qq -y remove azure-proxy-agent && [ ! -e $PINS ]
}
check 'removing the package ends it, too' removal
