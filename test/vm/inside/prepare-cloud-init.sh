# Prepares a machine that takes itself for one of Azure: cloud-init provisions it at the next boot, with an address from
# the host, and asks for the agent first, as the provisioning data says.

HOST_ORDER='After=local-fs.target
Before=cloud-init-local.service'
. /vm/inside/prepare.sh

# The machine's network card and what answers on it: here both of them are there before the system looks.
mkdir -p /etc/systemd/system/azure-host.service.d
cat > /etc/systemd/system/azure-host.service.d/dhcp.conf <<UNIT
[Service]
Environment=BY_DHCP=yes
ExecStartPost=ip -n azure-host address add 10.0.0.1/24 dev azure1
ExecStartPost=nsenter --net=/run/netns/azure-host dnsmasq --port=0 --interface=azure1 --bind-interfaces --no-ping \\
    --dhcp-authoritative --dhcp-range=10.0.0.4,10.0.0.4,255.255.255.0 --leasefile-ro --user=root --pid-file=/run/azure-dhcp.pid \\
    --dhcp-option-force=121,0.0.0.0/0,10.0.0.1,168.63.129.16/32,10.0.0.1,169.254.169.254/32,10.0.0.1 \\
    --dhcp-option-force=245,168.63.129.16
UNIT
systemctl enable -q systemd-networkd.service
systemctl disable -q systemd-networkd-wait-online.service

mkdir -p -m 700 /var/lib/cloud/seed/azure
cat > /var/lib/cloud/seed/azure/ovf-env.xml <<OVF
<?xml version="1.0" encoding="utf-8"?>
<Environment xmlns="http://schemas.dmtf.org/ovf/environment/1" xmlns:wa="http://schemas.microsoft.com/windowsazure">
  <wa:ProvisioningSection>
    <wa:Version>1.0</wa:Version>
    <wa:LinuxProvisioningConfigurationSet>
      <wa:ConfigurationSetType>LinuxProvisioningConfiguration</wa:ConfigurationSetType>
      <wa:HostName>from-ovf</wa:HostName>
      <wa:UserName>azureuser</wa:UserName>
      <wa:DisableSshPasswordAuthentication>true</wa:DisableSshPasswordAuthentication>
    </wa:LinuxProvisioningConfigurationSet>
  </wa:ProvisioningSection>
  <wa:PlatformSettingsSection>
    <wa:Version>1.0</wa:Version>
    <wa:PlatformSettings>
      <wa:ProvisionGuestAgent>false</wa:ProvisionGuestAgent>
      <wa:PreprovisionedVm>false</wa:PreprovisionedVm>
      <wa:ProvisionGuestProxyAgent>true</wa:ProvisionGuestProxyAgent>
    </wa:PlatformSettings>
  </wa:PlatformSettingsSection>
</Environment>
OVF
check 'cloud-init is there' systemctl cat -q cloud-init-local.service
