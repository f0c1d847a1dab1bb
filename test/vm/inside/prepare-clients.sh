# Prepares a machine on which waagent takes the simulated host for the real one.

. /vm/inside/prepare.sh
# No disk to format, no extension to download; the route tells it where WireServer is.
sed -i -e 's/^Provisioning.Agent=.*/Provisioning.Agent=disabled/' -e 's/^ResourceDisk.Format=.*/ResourceDisk.Format=n/' \
    -e 's/^Extensions.Enabled=.*/Extensions.Enabled=y/' -e 's/^Logs.Collect=.*/Logs.Collect=n/' \
    -e 's/^# *Logs.Verbose=.*/Logs.Verbose=y/' /etc/waagent.conf
grep -q '^Logs.Verbose' /etc/waagent.conf || echo 'Logs.Verbose=y' >> /etc/waagent.conf
check 'waagent is there' systemctl cat -q walinuxagent.service
# It would start on Azure's hypervisor alone.
mkdir -p /etc/systemd/system/walinuxagent.service.d
printf '[Unit]\nConditionVirtualization=\n' > /etc/systemd/system/walinuxagent.service.d/here.conf
systemctl disable -q walinuxagent.service
