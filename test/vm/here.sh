# The first program in the namespaces that here.ts makes: lays out the machine's file systems, and becomes its systemd.
# $ROOT, $WORK: see here.ts. Its arguments are words of the kernel's command line, where systemd in a container looks for them.

set -e
console=$(tty)
cd "$WORK"
mount -t overlay -o "lowerdir=$ROOT,upperdir=$WORK/upper,workdir=$WORK/overlay" overlay root
mkdir -p root/vm
: > root/etc/fstab
mount --bind -o ro payload root/vm

mount -t proc proc root/proc
mount --bind -o ro root/proc/sys root/proc/sys
mount -t sysfs -o ro sysfs root/sys
mount -t cgroup2 cgroup2 root/sys/fs/cgroup
mount -t bpf bpf root/sys/fs/bpf
for folder in run tmp dev; do mount -t tmpfs -o mode=755 tmpfs root/$folder; done
chmod 1777 root/tmp

cd root/dev
mknod -m 666 null c 1 3
mknod -m 666 zero c 1 5
mknod -m 666 full c 1 7
mknod -m 666 random c 1 8
mknod -m 666 urandom c 1 9
mknod -m 666 tty c 5 0
mkdir pts shm
mount -t devpts -o newinstance,ptmxmode=0666 devpts pts
ln -s pts/ptmx ptmx
ln -s /proc/self/fd fd
: > console
mount --bind "$console" console
: > ttyS1
mount --bind "$WORK/results" ttyS1

cd "$WORK/root"
pivot_root . mnt
umount -l mnt
exec env -i container=other PATH=/usr/sbin:/usr/bin:/sbin:/bin /sbin/init "$@"
