# The files of a release on a machine, put there as README says, without dpkg.

check 'the files are those of SHA256SUMS' sh -c 'cd /vm/release && sha256sum --check --strict --ignore-missing SHA256SUMS | grep -c OK | grep -qx 5'
awk '/^By hand, on an image/ { here = 1 } here && /^```$/ { exit } inside { print } here && /^```sh$/ { inside = 1 }' \
    /vm/README.md > /srv/by-hand
check 'README has three lines for it' same 3 "$(wc -l < /srv/by-hand)"
check 'they do' sh -ec 'cd /vm/release && . /srv/by-hand'
check 'the service will start' systemctl is-enabled -q $UNIT
