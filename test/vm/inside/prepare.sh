# Installs the package for the next boots, and a host that comes with the network; or otherwise, where HOST_ORDER says so.

check 'the package installs' dpkg -i /vm/new.deb
mkdir -p /srv/host
cat > /srv/host/rules.json <<RULES
{
  "wireserver": { "defaultAccess": "allow", "mode": "enforce", "id": "vm-wireserver" },
  "imds": { "defaultAccess": "allow", "mode": "enforce", "id": "vm-imds" }
}
RULES
cp -r /vm/tree /srv/host/tree
cat > /etc/systemd/system/azure-host.service <<UNIT
[Unit]
Description=A simulated host, as the network brings it
DefaultDependencies=no
${HOST_ORDER:-After=network-pre.target local-fs.target
Before=network.target}
ConditionKernelCommandLine=azure-host

[Service]
Type=oneshot
RemainAfterExit=yes
Environment=AUTOPKGTEST_TMP=/run
ExecStart=/bin/sh /srv/host/tree/debian/tests/fabric start /srv/host/rules.json

[Install]
WantedBy=multi-user.target
UNIT
systemctl enable -q azure-host.service
systemctl stop $UNIT
rm -rf /var/log/azure-proxy-agent/* /var/lib/azure-proxy-agent/*
check 'the machine is prepared' systemctl is-enabled -q azure-proxy-agent.service azure-host.service
