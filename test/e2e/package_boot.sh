# Boots systemd as the first process of new namespaces, on this machine's files: what it writes is in memory, and gone
# with it. PACKAGE is installed first, as dpkg does it. $1: an empty folder; $2: the name of its control groups.
set -euo pipefail
exec 2>&1
work=$1
# Control groups of both kinds: version 2 alone, or beside version 1.
groups=/sys/fs/cgroup
if [[ $(stat -fc %T $groups) == cgroup2fs ]]; then
	hierarchies=.
else
	hierarchies=$(cd $groups && ls -d unified systemd devices)
fi
for h in $hierarchies; do
	mkdir -p $groups/$h/$2
	echo 0 >$groups/$h/$2/cgroup.procs
done
export work hierarchies
exec unshare --cgroup bash -euo pipefail -c '
mount --make-rprivate /
mount -t tmpfs tmpfs $work
mkdir $work/{upper,work,root}
root=$work/root
mount -t overlay overlay -o lowerdir=/,upperdir=$work/upper,workdir=$work/work $root
mount -t proc proc $root/proc
mount -t sysfs sysfs $root/sys
mount -t tmpfs -o mode=755 tmpfs $root/run
mount -t tmpfs -o mode=755 tmpfs $root/dev
if [[ $hierarchies == . ]]; then
	mount -t cgroup2 cgroup2 $root/sys/fs/cgroup
else
	mount -t tmpfs -o mode=755 tmpfs $root/sys/fs/cgroup
	for h in $hierarchies; do
		mkdir $root/sys/fs/cgroup/$h
		case $h in
		unified) mount -t cgroup2 cgroup2 $root/sys/fs/cgroup/$h ;;
		systemd) mount -t cgroup -o none,name=systemd,xattr cgroup $root/sys/fs/cgroup/$h ;;
		*) mount -t cgroup -o $h cgroup $root/sys/fs/cgroup/$h ;;
		esac
	done
fi
mkdir $root/dev/{net,pts,shm}
ln -s pts/ptmx $root/dev/ptmx # PrivateDevices= asks for it
for d in null zero full random urandom tty net/tun; do
	touch $root/dev/$d
	mount --bind /dev/$d $root/dev/$d
done
cp "$PACKAGE" $work/root/run/nsgd.deb
rm -rf $root/etc/nsgd $root/etc/systemd/system/nsgd*
chroot $root dpkg --force-depends --no-triggers -i /run/nsgd.deb # those of manual pages read all that this machine has
# Units with a root of their own need more than a chroot.
cd $root
pivot_root . mnt
umount -l /mnt
exec env -i container=nsgd PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd --system --unit=basic.target
'
