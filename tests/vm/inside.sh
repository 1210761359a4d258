#!/bin/sh
# Run in the virtual machine by inside.service: installs the packages, runs a job as an operator would, and the tests.
set -eu
export PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8
tape=/opt/tape
source=/opt/source

[ "$(stat --file-system --format=%T /sys/fs/cgroup)" = cgroup2fs ]

dpkg --install "$tape"/*.deb >/dev/null
systemctl is-active builder-server
systemctl start builder-worker@vm
printf '#!/bin/sh\necho hello >greeting\n' | builder-client schedule greet vm - --period daily
timeout 600 sh -c 'until ls /var/lib/builder/greet/*/full; do sleep 1; done'
builder-inspect /var/lib/builder/greet/*/full

# a restart and a crash of the worker, under a job that goes on
until_true() { timeout 600 sh -c "until $1; do sleep 0.5; done"; }
job=/var/lib/builder-worker/jobs/builder-*
printf '#!/bin/sh\necho begun\nuntil [ -e go ]; do sleep 0.1; done\necho end >file\n' |
  builder-client schedule last vm - --period daily
until_true "grep -q begun $job/console 2>/dev/null"
adopted() { until_true "[ \$(journalctl -u builder-worker@vm | grep -c 'adopted') = $1 ]"; }
systemctl restart builder-worker@vm
adopted 1
systemctl kill --signal KILL --kill-who main builder-worker@vm
adopted 2
for place in $job/disk/build; do touch "$place/go"; done
until_true 'ls /var/lib/builder/last/*/full'
builder-inspect /var/lib/builder/last/*/full
systemctl stop builder-worker@vm
[ -z "$(ls -d $job 2>/dev/null)" ]
systemctl stop builder-server
journalctl --no-pager --output=cat -u builder-server -u 'builder-worker@*'

mkdir "$source"
tar -xf "$tape/source.tar" -C "$source"
cd "$source"
export BUILDER_TEST_REQUIRE=bubblewrap,overlay,podman BUILDER_TEST_DEADLINE=600
export PYTHONPATH=$source:$source/server:$source/worker:$source/client
xargs --delimiter='\n' --arg-file="$tape/arguments" \
  systemd-run --quiet --scope -p Delegate=yes /opt/venv/bin/python -m pytest -q -n 2 -p no:cacheprovider
echo "all of it passed"
