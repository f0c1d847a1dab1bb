# Upgrades with a host and with clients that go on asking, and the change from the reference package.

mkdir -p /srv/host
cat > /srv/host/rules.json <<RULES
{
  "wireserver": { "defaultAccess": "allow", "mode": "enforce", "id": "vm-wireserver" },
  "imds": { "defaultAccess": "allow", "mode": "enforce", "id": "vm-imds" }
}
RULES

check 'the host is there' sh /vm/tree/debian/tests/fabric start /srv/host/rules.json
dpkg -i /vm/previous.deb > /dev/null 2>&1
check 'the previous version is provisioned' azure-proxy-agent --status --wait 90

# asks for ever, one line an answer: when, status
traffic() {
    while :; do
        echo "$(date +%s.%N) $(curl --silent --max-time 10 --output /dev/null --write-out '%{http_code}' -H 'Metadata: true' "http://169.254.169.254$INSTANCE")"
    done > /srv/traffic
}
gap() {
    awk '$2 == 200 { if (last && $1 - last > most) most = $1 - last; last = $1 } END { printf "%.2f s at most between two good answers, %d good, %d others\n", most, n200, other } { $2 == 200 ? n200++ : other++ }' /srv/traffic
}
during() {
    traffic &
    pid=$!
    sleep 3
    "$@" > /srv/during.log 2>&1
    code=$?
    within 60 listens
    azure-proxy-agent --status --wait 60
    sleep 4
    kill $pid
    wait $pid 2> /dev/null
    cp /srv/traffic "/srv/traffic.$1"
    [ $code = 0 ] || {
        cat /srv/during.log
        return 1
    }
    # Answered again at the end, by the new process, and refused by nobody: 403 of the host would mean unsigned.
    tail -1 /srv/traffic | grep -q ' 200$'
}
check 'a restart under traffic ends well' during systemctl restart $UNIT
tell 'restart under traffic' "$(gap)"
tell 'by the journal' "$(journalctl -u $UNIT -o short-monotonic --no-pager -q | grep -E 'Stopping|Stopped|Started|Starting' | tail -3 | cut -c 1-60 | paste -sd ';')"
check 'an upgrade under traffic ends well' during dpkg -i /vm/new.deb
tell 'upgrade under traffic' "$(gap)"
tell 'answers during the upgrade' "$(awk '{ print $2 }' /srv/traffic | sort | uniq -c | tr '\n' ' ')"
upgraded() {
    same "$(dpkg-deb -f /vm/new.deb Version)" "$(dpkg-query -W -f '${Version}' azure-proxy-agent)"
}
check 'the new version is installed' upgraded
apt-get -qq -y purge azure-proxy-agent > /dev/null 2>&1

sh /vm/tree/debian/tests/fabric stop

# The reference package, with what it leaves on a disk, and the host that latched its key.
GUID=9cf81e97-0316-4ad3-94a7-8ccbdee8ccbf
KEY=4A404E635266556A586E3272357538782F413F4428472B4B6250645367566B59
dpkg -i /vm/reference.deb > /dev/null 2>&1
check 'the reference package runs' systemctl is-active $UNIT
mkdir -p /var/lib/azure-proxy-agent/keys /var/lib/azure-proxy-agent/rules
chmod 0700 /var/lib/azure-proxy-agent/keys /var/lib/azure-proxy-agent/rules
chmod 0755 /var/lib/azure-proxy-agent /var/log/azure-proxy-agent
cat > /var/lib/azure-proxy-agent/keys/$GUID.key << FILE
{
  "authorizationScheme": "Azure-HMAC-SHA256",
  "guid": "$GUID",
  "incarnationId": 1,
  "issued": "2021-05-05T 12:00:00Z",
  "key": "$KEY"
}
FILE
chmod 0600 /var/lib/azure-proxy-agent/keys/$GUID.key
key_sum=$(sha256sum /var/lib/azure-proxy-agent/keys/$GUID.key)
echo '{"defaultAccess":"allow","mode":"audit","id":"administrator"}' > /var/lib/azure-proxy-agent/rules/IMDS_Rules.json
printf '2026-01-02T03:04:05.678' > /var/lib/azure-proxy-agent/keys/provisioned.tag
: > /var/lib/azure-proxy-agent/keys/status.tag
echo '2026-01-02T03:04:05.678Z [Info] a line of the reference' > /var/log/azure-proxy-agent/ProxyAgent.log
sed -i 's/"Trace"/"Debug"/' /etc/azure/proxy-agent.json
mkdir -p /etc/systemd/system.control/$UNIT.d
printf '[Service]\nCPUQuota=15%%\n' > /etc/systemd/system.control/$UNIT.d/50-CPUQuota.conf
check 'the host has the key of the reference' sh /vm/tree/debian/tests/fabric start /srv/host/rules.json --latched-key $GUID:$KEY

# As README says: keep the configuration, take the lasting limit away.
rm -r /etc/systemd/system.control/$UNIT.d
check 'our package takes its place' dpkg --force-confold -i /vm/new.deb
check 'and is provisioned' azure-proxy-agent --status --wait 120
kept() {
    grep -q '"fileLogLevel": "Debug"' /etc/azure/proxy-agent.json &&
        grep -q 'a line of the reference' /var/log/azure-proxy-agent/ProxyAgent.log &&
        grep -q administrator /var/lib/azure-proxy-agent/rules/IMDS_Rules.json &&
        [ ! -e /usr/lib/azure-proxy-agent/ebpf_cgroup.o ]
}
check 'configuration, rules and logs are kept, the old program file is gone' kept
key_kept() {
    same "$key_sum" "$(sha256sum /var/lib/azure-proxy-agent/keys/$GUID.key)" &&
        same 1 "$(ls /var/lib/azure-proxy-agent/keys/*.key | wc -l)" &&
        same 200 "$(ask "http://169.254.169.254$INSTANCE")"
}
check 'the key is kept, and the host takes what it signs' key_kept
closed() {
    same '700 750' "$(stat -c %a /var/lib/azure-proxy-agent /var/log/azure-proxy-agent | paste -sd ' ')"
}
check 'directories that were open to everybody are closed' closed
apt-get -qq -y purge azure-proxy-agent > /dev/null 2>&1
purged() {
    [ ! -e /var/lib/azure-proxy-agent ] && [ ! -e /var/log/azure-proxy-agent ] && [ ! -e /etc/azure/proxy-agent.json ]
}
check 'purging takes away what the reference had written' purged
sh /vm/tree/debian/tests/fabric stop
