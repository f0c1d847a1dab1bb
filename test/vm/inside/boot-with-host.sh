# A boot on a machine whose network brings a host: provisioned without anybody's help, and cloud-init's question is answered.

. /vm/inside/order.sh
check 'the host came with the network' within 60 systemctl is-active -q azure-host.service
check 'azure-proxy-agent --status --wait 120, as cloud-init asks' azure-proxy-agent --status --wait 120
tell 'provisioned' "$(grep -o 'elapsed.*' /var/log/azure-proxy-agent/ProxyAgent.log | tail -1)"
served() {
    same 200 "$(ask "http://169.254.169.254$INSTANCE")" && same 200 "$(ask_as_nobody "http://169.254.169.254$INSTANCE")" &&
        same 403 "$(ask_as_nobody 'http://168.63.129.16/machine/?comp=goalstate')"
}
check 'root and others get what they may' served
check 'the key is stored' sh -c 'ls /var/lib/azure-proxy-agent/keys/*.key'
