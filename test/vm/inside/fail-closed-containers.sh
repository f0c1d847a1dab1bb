# failClosed and another network namespace, under the real unit and with a host: listeners there outlive the process, too.

kept() {
    within 20 sh -c "[ \"\$(systemctl show -p NFileDescriptorStore --value $UNIT)\" = $1 ]"
}
answered_there() {
    same 200 "$(nsenter --net=/run/netns/inner curl --silent --max-time 20 --output /dev/null \
        --write-out '%{http_code}' -H 'Metadata: true' "http://169.254.169.254$INSTANCE")"
}
went_on() {
    within 20 sh -c "[ \"\$(grep -c 'Went on with the listeners of 1 other' /var/log/azure-proxy-agent/ProxyAgent.log)\" = $1 ]"
}

starts() {
    sed -i '0,/{/s//{ "failClosed": true,/' /etc/azure/proxy-agent.json && systemctl restart $UNIT &&
        azure-proxy-agent --status --wait 120 && kept 1
}
check 'with failClosed the service is provisioned, and its listener kept' starts

ip netns add inner
ip -n inner link set lo up
nsenter --net=/run/netns/inner sleep 3600 &
lives=$!
served() {
    answered_there && kept 2
}
check 'who asks from another network namespace is served, and the listener there kept' served
restarts() {
    systemctl restart $UNIT && answered_there && went_on 1 && kept 2
}
check 'a restart goes on with it' restarts
recovers() {
    old=$(main_pid)
    kill -9 "$old"
    answered_there && [ "$(main_pid)" != "$old" ] && went_on 2 && kept 2
}
check 'killed with SIGKILL, who asks meanwhile waits and is answered by the next process' recovers
empties() {
    kill $lives
    kept 1
}
check 'when nobody lives there any more, it is given up' empties
