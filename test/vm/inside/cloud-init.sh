# The first boot of a machine in Azure, as cloud-init sees it: it finds the platform by itself, gets an address, asks the agent,
# and has its metadata through it.

. /vm/inside/order.sh
tell 'the machine' "$(uname -r), systemd $(systemctl --version | awk 'NR == 1 { print $2 }'), cloud-init $(dpkg-query -W -f '${Version}' cloud-init)"
host() {
    curl --silent --max-time 20 --unix-socket /run/azure-host/control "http://host$1"
}
requests() {
    host '/requests?after=0' | jq -c '.. | objects | select(has("endpoint") and has("target"))'
}
DATA=/run/cloud-init/instance-data-sensitive.json

finished() {
    timeout 240 cloud-init status --wait --long
    jq -e '.v1.datasource | startswith("DataSourceAzure")' /run/cloud-init/result.json || {
        cat /run/cloud-init/result.json /run/cloud-init/ds-identify.log
        tail -20 /var/log/cloud-init.log
        return 1
    }
}
check 'cloud-init has finished, with the Azure data source' finished
asked() {
    grep 'azure-proxy-agent' /var/log/cloud-init.log
    grep -q "Executing \['azure-proxy-agent', '--status', '--wait', '120'\] resulted" /var/log/cloud-init.log
}
check 'it has called azure-proxy-agent --status --wait 120, which succeeded' asked
tell 'when it called, and when that ended' "$(grep "'--status', '--wait', '120'\]" /var/log/cloud-init.log | cut -c 12-23 | paste -sd ' ')"
metadata() {
    jq -e '.ds.meta_data.imds.compute.vmId and .ds.meta_data.imds.network.interface[0].macAddress == "000D3A123456"' $DATA
}
check 'it has the instance metadata of the host' metadata
named() {
    same "$(jq -r .ds.meta_data.imds.compute.osProfile.computerName $DATA)" "$(hostname)" && id azureuser
}
check 'the machine has the name, and the user, that the metadata say' named

count() {
    requests | jq -es "map(select($1)) | length >= 1" > /dev/null || {
        requests | jq -c '[.endpoint, .method, .target, .status, .signature]' | tail -20
        return 1
    }
}
check 'the host saw the metadata asked for, signed' count '.endpoint == "imds" and .status == 200 and .signature == "right" and (.target | startswith("/metadata/instance?api-version=2021-08-01"))'
check 'the host saw the machine report that it is ready, signed' count '.method == "POST" and (.target | startswith("/machine/?comp=health") or startswith("/machine?comp=health")) and .status == 200 and .signature == "right"'
no_refusal() {
    ! count '.status == 401 or .status == 403 or .signature == "wrong"' > /dev/null || count 'false'
}
check 'the host refused nothing' no_refusal
# The card is eth0 now: cloud-init names it as the metadata count it.
served() {
    within 60 sh -c 'ip -4 address show dev eth0 | grep -q "inet 10.0.0.4/24"' || {
        ip address
        networkctl --no-pager status
        return 1
    }
    same 200 "$(ask "http://169.254.169.254$INSTANCE")" &&
        same 200 "$(ask_as_nobody "http://169.254.169.254$INSTANCE")"
}
check 'the network that cloud-init left leads to the host, by way of the agent' served
tell 'what the host saw' "$(requests | jq -r '"\(.endpoint) \(.method) \(.target | split("?")[0]) \(.status) \(.signature)"' | sort | uniq -c | sort -rn | head -20 | paste -sd ';')"
