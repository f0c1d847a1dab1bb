# Debian's own clients against the simulated host: what they ask goes through the agent, signed, and is served.

host() {
    curl --silent --max-time 20 --unix-socket /run/azure-host/control "http://host$1"
}
requests() {
    host '/requests?after=0' | jq -c '.. | objects | select(has("endpoint") and has("target"))'
}
check 'the host came with the network' within 60 systemctl is-active -q azure-host.service
check 'the agent is provisioned' azure-proxy-agent --status --wait 120

check 'cloud-init: goal state, certificates and ready report to WireServer' python3 -c '
from cloudinit.sources.helpers.azure import get_metadata_from_fabric
get_metadata_from_fabric("168.63.129.16")
'
check 'cloud-init: instance metadata' python3 -c '
from cloudinit.sources import DataSourceAzure as azure
data = azure.get_metadata_from_imds(retries=3, md_type=azure.MetadataType.ALL, api_version=azure.IMDS_VER_WANT)
assert data["compute"]["vmId"], data
'
goal_states() {
    requests | jq -es 'map(select((.target | test("^/machine/?[?]comp=goalstate")) and .status == 200 and .signature == "right")) | length'
}
before=$(goal_states)
# What DHCP would have told it; nobody answers that here, and it would ask for three minutes.
install -d -m 700 /var/lib/waagent
printf 168.63.129.16 > /var/lib/waagent/WireServerEndpoint
systemctl start walinuxagent.service
goal_state_again() {
    [ "$(goal_states)" -gt "$before" ]
}
check 'waagent: fetches its goal state, signed' within 120 goal_state_again
sleep 20
waagent_works() {
    systemctl is-active walinuxagent.service && grep 'Wire server endpoint:168.63.129.16\|WireServer endpoint 168.63.129.16' /var/log/waagent.log || {
        tail -8 /var/log/waagent.log
        return 1
    }
}
check 'waagent: runs, and found WireServer' waagent_works
no_refusal() {
    requests | jq -es 'map(select(.status == 401 or .status == 403 or .signature == "wrong")) | length == 0' || {
        requests | jq -c 'select(.status == 401 or .status == 403 or .signature == "wrong") | [.endpoint, .method, .target, .status, .signature]'
        return 1
    }
}
check 'the host refused nothing' no_refusal
tell 'what the host saw' "$(requests | jq -r '"\(.endpoint) \(.method) \(.target | split("?")[0]) \(.status) \(.signature)"' | sort | uniq -c | sort -rn | head -20 | paste -sd ';')"
tell 'waagent says' "$(grep -v '^$' /var/log/waagent.log | grep -iE 'error|warn|goal|wire' | tail -6 | cut -c 1-160 | paste -sd ';')"
