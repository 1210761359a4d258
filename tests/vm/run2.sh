#!/usr/bin/env bash
# Runs the packages and the tests of the sandboxes in a virtual machine: Debian 12 with systemd as process 1 and control
# groups of version 2, which a container or an older host can't offer.
#
#   tests/vm/run.sh [PYTEST ARGUMENTS]        without any, the tests of the sandboxes
#
# Needs root, x86_64, mmdebstrap, qemu-system-x86_64, e2fsprogs, and dist/*.deb (make deb, on Debian 12). The machine's disk is made
# once, in a minute, and kept in BUILDER_TEST_CACHE; what runs in it changes a copy. Without /dev/kvm all is emulated,
# and the tests take half an hour instead of two minutes. ACCEL=tcg chooses that, where KVM is there and does not work.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
top=$(cd "$here/../.." && pwd)
python=$top/.venv/bin/python
deadline=${VM_DEADLINE:-3600} # seconds

packages=(
  linux-image-cloud-amd64 systemd-sysv udev dbus dbus-user-session libpam-systemd
  python3 python3-venv bubblewrap podman crun uidmap mmdebstrap
  e2fsprogs util-linux passwd procps perl iproute2 make tar
)

# A disk is good for as long as what it is made from stays the same.
cache=${BUILDER_TEST_CACHE:-/var/cache/builder-tests}/vm-$(
  cat "$top/pyproject.toml" "$here/run.sh" "$here/inside.service" | sha256sum | cut -c1-12
)

make_disk() {
  local work=$1
  "$python" - "$top/pyproject.toml" >"$work/requirements.txt" <<'PYTHON'
import sys, tomllib
with open(sys.argv[1], "rb") as file:
    project = tomllib.load(file)["project"]
wanted = [*project["dependencies"], *(line for line in project["optional-dependencies"]["dev"] if "pytest" in line or "hypothesis" in line)]
print("\n".join(wanted))
PYTHON
  # the machine has no network, so what its Python needs is brought along
  "$python" -m pip download --quiet --python-version 3.11 --only-binary :all: \
    --dest "$work/wheels" --requirement "$work/requirements.txt"
  # $1 is for the hooks, in which it is the tree:
  # shellcheck disable=SC2016
  mmdebstrap --quiet --variant=minbase --include="$(IFS=,; echo "${packages[*]}")" \
    --customize-hook="copy-in $work/wheels $work/requirements.txt $here/inside.service /root" \
    --customize-hook="chroot \"\$1\" sh -c 'python3 -m venv /opt/venv &&
      /opt/venv/bin/pip install --quiet --no-index --find-links /root/wheels --requirement /root/requirements.txt &&
      mv /root/inside.service /etc/systemd/system/ && systemctl enable --quiet inside && rm -r /root/wheels'" \
    --customize-hook='echo "/dev/vda / ext4 rw 0 1" >"$1/etc/fstab"; echo vm >"$1/etc/hostname"' \
    bookworm "$work/tree.tar"
  mkdir "$work/tree"
  tar --extract --numeric-owner --file="$work/tree.tar" --directory="$work/tree"
  mkdir -p "$work/tree/var/cache/builder-tests"
  "$python" -m builder_worker root create debian-12 "$work/tree/var/cache/builder-tests/debian-12"
  truncate --size=8G "$work/disk"
  mkfs.ext4 -q -F -d "$work/tree" "$work/disk"
  cp "$work"/tree/boot/vmlinuz-* "$work/kernel"
  cp "$work"/tree/boot/initrd.img-* "$work/initrd"
  mkdir -p "$cache"
  mv "$work/disk" "$work/kernel" "$cache/"
  mv "$work/initrd" "$cache/initrd.part"
  mv "$cache/initrd.part" "$cache/initrd" # last, and at once: it tells that all is there
}

# What the machine is given, as a tape: a tar archive on its second disk.
make_tape() {
  local work=$1
  shift
  mkdir "$work/tape"
  git -C "$top" ls-files -z | tar --create --file="$work/tape/source.tar" --directory="$top" --null --files-from=-
  cp "$top"/dist/*.deb "$here/inside.sh" "$work/tape/"
  printf '%s\n' "$@" >"$work/tape/arguments"
  tar --create --file="$work/tape.tar" --directory="$work/tape" .
  truncate --size=+1M "$work/tape.tar"
}

work=$(mktemp --directory --tmpdir=/var/tmp builder-vm-XXXXXX)
trap 'rm -rf "$work"' EXIT
[ -e "$cache/initrd" ] || make_disk "$work"
[ $# -gt 0 ] || set -- tests/test_sandbox_*.py
make_tape "$work" "$@"

accel=${ACCEL:-$([ -w /dev/kvm ] && echo kvm || echo tcg)}
timeout "$deadline" qemu-system-x86_64 -snapshot -accel "$accel" -cpu max -m 3000 -smp 1 -nographic -no-reboot -nic none \
  -kernel "$cache/kernel" -initrd "$cache/initrd" \
  -append "root=/dev/vda rw console=ttyS0 loglevel=1 systemd.show_status=no systemd.mask=serial-getty@ttyS0.service" \
  -drive "file=$cache/disk,if=virtio,format=raw,cache=unsafe" \
  -drive "file=$work/tape.tar,if=virtio,format=raw,readonly=on" </dev/null | tee "$work/console"
grep --quiet '^all of it passed' "$work/console"
