#!/bin/sh
# Takes jobs for a platform, each in a jail of its own: a zfs clone of a snapshot, one worker in a jail on it, which takes
# one job and exits; then jail and clone are destroyed, and the next one begins as the first did.
#
#   builder_worker.sh PLATFORM SLOT SNAPSHOT [OPTION OF builder-worker...]
#   builder_worker.sh freebsd-14 1 zroot/builder/freebsd-14@base --timeout 7200
#
# It has not run on FreeBSD yet: its command lines are tested against programs that only note them.
#
# The snapshot is a FreeBSD with builder-worker in /usr/local/bin. It must run as root. Settings in the environment:
#   BUILDER_REMOTE  127.0.0.1:1234: the server, as the jail sees it
#   BUILDER_CLONES  zroot/builder/jobs: the dataset in which the clones are made
#   BUILDER_QUOTA   20G: what one job may write
#   BUILDER_JAIL    "ip4=inherit ip6=inherit": the network and other parameters of the jail. With this default jobs
#                   share the host's network and reach its services on 127.0.0.1; "ip4.addr=lo1|10.7.0.2" is safer.
#   BUILDER_RCTL    limits of the jail, such as "memoryuse:deny=8g maxproc:deny=4000"; the kernel needs
#                   kern.racct.enable=1 in /boot/loader.conf for them
#
# SIGTERM and SIGINT end it, and the job with it, which the server then gives to another worker. What it could not
# destroy, after SIGKILL or a crash of the machine, is destroyed at its next start.

set -u

say() {
    printf 'builder_worker.sh: %s\n' "$*" >&2
}

usage() {
    say "$*"
    say 'usage: builder_worker.sh PLATFORM SLOT SNAPSHOT [OPTION...]'
    exit 2
}

[ $# -ge 3 ] || usage 'too few arguments'
platform=$1
slot=$2
snapshot=$3
shift 3

remote=${BUILDER_REMOTE:-127.0.0.1:1234}
clones=${BUILDER_CLONES:-zroot/builder/jobs}
quota=${BUILDER_QUOTA:-20G}

# These become names of datasets, jails and directories: what has a meaning there is refused.
case $platform in
'' | [-.]* | *[!A-Za-z0-9._-]*) usage 'a platform is letters, digits, and after the first also . _ and -' ;;
esac
case $slot in
[1-9] | [1-9][0-9]) ;;
*) usage 'a slot is a number from 1 to 99' ;;
esac
case $snapshot in
*@*@* | *[!A-Za-z0-9._:/@-]* | [!A-Za-z]* | *//* | */@* | *@) usage "not a snapshot: $snapshot" ;;
?*@?*) ;;
*) usage "not a snapshot: $snapshot" ;;
esac
case $clones in
[!A-Za-z]* | *[!A-Za-z0-9._:/-]* | *//* | */) usage "not a dataset: $clones" ;;
esac
case $quota in
none | [1-9] | [1-9]*[0-9KMGT]) ;;
*) usage "not a size: $quota" ;;
esac

# A dot in the name of a jail separates it from the jail that it is in. Two platforms never get the same name.
jail=builder-$(printf %s "$platform" | sed 's/_/__/g; s/\./_-/g')-$slot
clone=$clones/$jail

# Destroy whatever there is of the last jail. It fails if something is left, so that no job begins on it.
destroy() {
    if jls -j "$jail" jid >/dev/null 2>&1; then
        # -R kills everything in the jail at once, and asks no program in it.
        jail -R "$jail"
    fi
    [ -z "${BUILDER_RCTL:-}" ] || rctl -r "jail:$jail" 2>/dev/null
    if zfs list -H -o name "$clone" >/dev/null 2>&1; then
        root=$(zfs get -H -o value mountpoint "$clone")
        umount -f "$root/dev" 2>/dev/null
        zfs destroy -r -f "$clone" || return
    fi
}

# Make the clone and the jail. What fails is undone by destroy.
create() {
    zfs clone -o "quota=$quota" -o atime=off "$snapshot" "$clone" || return
    root=$(zfs get -H -o value mountpoint "$clone") || return
    case $root in
    /?*) ;;
    *)
        say "$clone is not mounted: give $clones a mountpoint"
        return 1
        ;;
    esac
    cp -f /etc/resolv.conf "$root/etc/resolv.conf" || return
    # Rule set 4 of /etc/defaults/devfs.rules is the one for jails.
    mount -t devfs -o ruleset=4 devfs "$root/dev" || return
    # shellcheck disable=SC2086 # the parameters are words
    jail -c name="$jail" path="$root" host.hostname=builder persist ${BUILDER_JAIL:-ip4=inherit ip6=inherit} \
        >/dev/null || return
    for rule in ${BUILDER_RCTL:-}; do
        rctl -a "jail:$jail:$rule" || return
    done
}

# Ends this script. The worker has no say: its connection ends with the jail, and that gives the job to another.
stop() {
    trap '' TERM INT
    say 'stopping'
    destroy
    wait
    exit 143
}

trap stop TERM INT
pause=1
destroy || exit 1
while :; do
    status=1
    if create; then
        # -l: in an environment that has nothing of this one. Not in the foreground, where no trap would run.
        jexec -l "$jail" /usr/local/bin/builder-worker --sandbox none --remote "$remote" "$@" "$platform" &
        wait $!
        status=$?
    fi
    if ! destroy; then
        say "$clone cannot be destroyed"
        exit 1
    fi
    case $status in
    0)
        pause=1
        continue
        ;;
    2)
        say 'builder-worker refuses its options'
        exit 2
        ;;
    esac
    # The server is away, or something here is broken: not as fast as the machine can.
    say "no result was delivered (status $status); next attempt in $pause s"
    sleep "$pause" &
    wait $!
    pause=$((pause * 2))
    [ "$pause" -le 60 ] || pause=60
done
