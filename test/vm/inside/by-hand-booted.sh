# The machine that by-hand.sh has prepared, and what README says to get rid of it again.

. /vm/inside/order.sh
check 'it is active, and listens' sh -c ". /vm/lib.sh; systemctl is-active -q $UNIT && within 60 listens"
check 'the executable is that of the release' cmp /usr/sbin/azure-proxy-agent /vm/release/azure-proxy-agent
removal() {
    grep -A 1 '^To remove that:' /vm/README.md | grep -F "systemctl disable --now $UNIT" &&
        systemctl disable --now $UNIT &&
        rm -r /usr/sbin/azure-proxy-agent /etc/azure/proxy-agent.json /etc/systemd/system/$UNIT /var/lib/azure-proxy-agent \
            /var/log/azure-proxy-agent
}
check 'removal' removal
leftovers() {
    found=$(find / -xdev \( -path /proc -o -path /sys -o -path /vm \) -prune -o -name '*azure-proxy-agent*' -print)
    [ -z "$found" ] && ! listens || {
        echo "$found"
        return 1
    }
}
check 'nothing is left, and nobody listens' leftovers
