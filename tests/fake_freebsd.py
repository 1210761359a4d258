"""FreeBSD as far as jails need it, on Linux: programs that note how they were called, and a real worker's session among them.

They keep a little of a system's state, and refuse what FreeBSD's would refuse: to destroy a clone in which something is
mounted, to make a jail twice. The jail is a change of the root directory. What this can't show is that FreeBSD's own
programs do what is expected of them.
"""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from uuid import UUID

import trio
from attrs import frozen
from fake_programs import make_programs, read_calls
from worker_program import Finished, open_server

from builder.endpoint import Servers
from builder_worker.build import Setup
from builder_worker.drain import Drain
from builder_worker.sandbox import Limits, SandboxError, owner
from builder_worker.sandbox.backends.jail import Jail
from builder_worker.sandbox.options import Options
from builder_worker.session import WorkerSettings, work_once

SNAPSHOT = "zroot/builder/freebsd-14@base"
NO_LIMITS = Limits()

PARTS = r"""
fails() {
    # As often as the order has lines.
    order=$FAKE/orders/$name-$1
    [ -s "$order" ] && sed -i 1d "$order" && echo "$name: device busy" >&2
}
jails=$FAKE/state/jails datasets=$FAKE/state/datasets mounts=$FAKE/state/mounts
mkdir -p "$jails" "$datasets"
touch "$mounts"
for last; do :; done
dataset=$datasets/$(printf %s "$last" | tr / +)
case $name-$1 in
zfs-clone)
    ! fails clone || exit 1
    quota=
    for word; do
        case $word in
        mountpoint=*) mountpoint=${word#*=} ;;
        quota=*) quota=${word#*=} ;;
        esac
    done
    [ -z "$quota" ] || /bin/mount -t tmpfs -o "size=$quota,mode=755" tmpfs "$mountpoint"
    mkdir "$mountpoint/dev" "$mountpoint/etc" "$mountpoint/tmp"
    ln -s /etc/elsewhere "$mountpoint/etc/resolv.conf"
    mkdir -p "$FAKE/outside"
    ln -s "$FAKE/outside" "$mountpoint/linked"
    [ ! -e "$FAKE/orders/linked-etc" ] || { rm -r "$mountpoint/etc"; ln -s "$FAKE/outside" "$mountpoint/etc"; }
    chmod 1777 "$mountpoint/tmp"
    printf '%s\t%s\t%s\n' "$last" "$(eval "printf %s \"\${$(($# - 1))}\"")" "$mountpoint" >"$dataset"
    ;;
zfs-list)
    case "$*" in
    *" -t snapshot "*) [ "$last" = zroot/builder/freebsd-14@base ] ;;
    *" -d 1 "*) cat "$datasets"/* 2>/dev/null || : ;;
    *" used "*) echo 123456 ;;
    *) [ -e "$dataset" ] ;;
    esac || { echo "cannot open '$last': dataset does not exist" >&2; exit 1; }
    ;;
zfs-destroy)
    ! fails destroy || exit 1
    mountpoint=$(cut -f 3 "$dataset")
    ! grep -q "	$mountpoint/" "$mounts" || { echo "cannot unmount '$mountpoint': device busy" >&2; exit 1; }
    # These are the only files that a test may lose, whatever it does wrong.
    case $mountpoint in
    *..*) exit 64 ;;
    "$FAKE"/work/builder-*/disk) ;;
    *) exit 64 ;;
    esac
    /bin/umount "$mountpoint" 2>/dev/null
    rm -rf "$mountpoint" "$dataset"
    ;;
mount-* | mount_nullfs-*)
    ! fails "$2" || exit 1
    eval "source=\${$(($# - 1))}"
    printf '%s\t%s\n' "$source" "$last" >>"$mounts"
    ;;
umount-*)
    # Only what was mounted last, as what lies below would be in use.
    [ "$(tail -n 1 "$mounts" | cut -f 2)" = "$last" ] || { echo "umount: $last: not a file system" >&2; exit 1; }
    sed -i '$d' "$mounts"
    ;;
jail--q)
    ! fails create || exit 1
    [ ! -e "$jails/${3#name=}" ] || { echo "jail: it is there already" >&2; exit 1; }
    echo "${4#path=}" >"$jails/${3#name=}"
    ;;
jail--R) [ -e "$jails/$2" ] && rm "$jails/$2" ;;
jls-name) ls "$jails" ;;
jls--j) [ -e "$jails/$2" ] && echo 7 || { echo "jls: jail \"$2\" not found" >&2; exit 1; } ;;
pkill-*) fails -j 2>/dev/null ;;
rctl--a) ! fails rule || exit 1 ;;
rctl--r) ;;
dmesg-) cat "$FAKE/state/dmesg" 2>/dev/null || : ;;
sysctl--n) cat "$FAKE/orders/$2" 2>/dev/null || echo 0 ;;
devfs-rule) [ -e "$FAKE/orders/no-devices" ] || echo "100 include 1" ;;
jexec--U)
    root=$(cat "$jails/$3") || exit 1
    [ "$2" = nobody ] || exit 1
    shift 3
    exec unshare --mount /bin/sh -c '
        root=$1 mounts=$2
        shift 2
        for name in bin sbin lib lib64 usr; do
            if [ -L "/$name" ]; then ln -s "usr/$name" "$root/$name"; else mkdir "$root/$name"; fi
        done
        /bin/mount --rbind /usr "$root/usr"
        while read -r source target; do
            [ "$source" != devfs ] || source=/dev
            /bin/mount --rbind "$source" "$target"
        done <"$mounts"
        exec chroot --userspec=65534:65534 "$root" "$@"
    ' sh "$root" "$mounts" "$@"
    ;;
*) echo "the fake $name does not know: $*" >&2; exit 64 ;;
esac
"""

PROGRAMS = (
    "zfs",
    "mount",
    "mount_nullfs",
    "umount",
    "jail",
    "jls",
    "jexec",
    "pkill",
    "rctl",
    "dmesg",
    "sysctl",
    "devfs",
)


@frozen(kw_only=True)
class FreeBSD:
    """A directory with the fakes and what they remember, and one for jobs."""

    root: Path
    environment: Mapping[str, str]

    @property
    def work_root(self) -> Path:
        return self.root / "work"

    @property
    def left(self) -> list[str]:
        """The jails, clones, mounts and directories that there are."""
        found = [path.name for kind in ("jails", "datasets") for path in (self.root / "state" / kind).glob("*")]
        found += (self.root / "state/mounts").read_text().splitlines()
        return [*found, *(path.name for path in self.work_root.glob("builder-*"))]

    def calls(self, uuid: UUID | None = None) -> list[str]:
        """Return the command lines so far, without those by which a check is made; TAG is the name of the job's things."""
        calls = read_calls(self.root)
        if uuid is not None:
            calls = [call.replace(owner.tag(str(uuid)), "TAG") for call in calls]
        return [call for call in calls if not call.startswith(("sysctl", "devfs", "zfs list -H -t snapshot"))]

    def order(self, name: str, text: str = "once\n") -> None:
        (self.root / "orders" / name).write_text(text)

    def jail(self, *, image: str | None = SNAPSHOT, system: str = "FreeBSD", **options: object) -> Jail:
        given = Options(image=image, work_root=self.work_root, **options)  # type: ignore[arg-type]
        return Jail(options=given, environment=self.environment, system=system)

    async def run(
        self, script: bytes, *, jail: Jail | None = None, limits: Limits = NO_LIMITS, name: str = "job", uuid: UUID
    ) -> Finished:
        """Run a job through a worker's session, up to the result at its server."""
        setup = Setup(backend=jail or self.jail(), limits=limits, date=0, given={"GIVEN": 'it\'s "$(so)"'})
        async with open_server() as server, trio.open_nursery() as nursery:
            host, _, port = server.address.partition(":")
            settings = WorkerSettings(servers=Servers.of(f"{host}:{port}", {}), platform="freebsd-14", setup=setup)
            nursery.start_soon(_work, settings)
            async with server.accept() as connection:
                await connection.hand_out(script, name=name, uuid=uuid)
                return await connection.finish()


def make(root: Path) -> FreeBSD:
    """Make the programs below a directory."""
    return FreeBSD(root=root, environment=make_programs(root, PROGRAMS, PARTS))


async def _work(settings: WorkerSettings) -> None:
    with suppress(SandboxError):  # the server has been told
        await work_once(settings, Drain())
