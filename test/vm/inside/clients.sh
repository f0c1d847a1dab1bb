# Debian's own clients against the simulated host: what they ask goes through the agent, signed, and is served.

host() {
    curl --silent --max-time 20 --unix-socket /run/azure-host/control "http://host$1"
}
requests() {
    host '/requests?after=0' | jq -c '.. | objects | select(has("endpoint") and has("target"))'
}
check 'the host came with the network' systemctl is-active -q azure-host.service
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
systemctl start walinuxagent.service
goal_state_again() {
    requests | jq -es 'map(select(.target == "/machine/?comp=goalstate" or (.target | startswith("/machine?comp=goalstate")))) | map(select(.status == 200 and (.rawHeaders | tostring | test("WALinuxAgent|x-ms-agent-name"; "i")))) | length >= 1'
}
check 'waagent: fetches its goal state' within 120 goal_state_again
waagent_says() {
    grep -q 'Wire server endpoint:168.63.129.16\|WireServer endpoint 168.63.129.16 read\|Using.*168.63.129.16' /var/log/waagent.log
}
check 'waagent: found WireServer' waagent_says
sleep 20
no_refusal() {
    requests | jq -es 'map(select(.status == 401 or .status == 403 or .signature == "wrong")) | length == 0' || {
        requests | jq -c 'select(.status == 401 or .status == 403 or .signature == "wrong") | [.endpoint, .method, .target, .status, .signature]'
        return 1
    }
}
check 'the host refused nothing' no_refusal
tell 'what the host saw' "$(requests | jq -r '"\(.endpoint) \(.method) \(.target | split("?")[0]) \(.status) \(.signature)"' | sort | uniq -c | sort -rn | head -20 | paste -sd ';')"
tell 'waagent says' "$(grep -v '^$' /var/log/waagent.log | grep -iE 'error|warn|goal|wire' | tail -6 | cut -c 1-160 | paste -sd ';')"
