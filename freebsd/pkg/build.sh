#!/bin/sh
# Builds a FreeBSD package of builder, on the release that it is for:
#
#   freebsd/pkg/build.sh [OUTPUT DIRECTORY] [PYTHON]        defaults: dist python3.11
#
# It has not run on FreeBSD yet; see docs/freebsd.md. The programs come with the Python libraries that they use, in
# /usr/local/lib/builder; pip compiles the few that PyPI has no FreeBSD wheels of, which takes minutes, and for cryptography
# needs `pkg install rust`.

set -eu

here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
output=${1:-$root/dist}
python=${2:-python3.11}

version=$(sed -n 's/^__version__ = "\(.*\)"$/\1/p' "$root/builder/__init__.py")
# The packages of ports are named after the first two parts of Python's version, such as python311.
python_suffix=$("$python" -c 'import sys; print("%d%d" % sys.version_info[:2])')

# installed NAME: the version of a package that this one depends on.
installed() {
    pkg query %v "$1" || {
        echo "freebsd/pkg/build.sh: pkg install $1" >&2
        exit 1
    }
}
python_version=$(installed "python$python_suffix")
# On FreeBSD this part of Python's library is a package of its own.
sqlite_version=$(installed "py$python_suffix-sqlite3")

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
stage=$work/stage
prefix=$stage/usr/local
mkdir -p "$output" "$work/meta" "$prefix/bin" "$prefix/etc/rc.d" "$prefix/etc/builder" "$prefix/lib/builder" \
    "$prefix/libexec" "$prefix/share/builder/templates" "$prefix/share/doc/builder" "$prefix/share/examples/builder"

"$python" -m venv "$work/venv"
"$work/venv/bin/python" -m pip --quiet install --no-compile --target "$prefix/lib/builder" \
    --constraint "$root/debian/constraints.txt" "${root}[web]"
rm -rf "$prefix/lib/builder/bin"
mv "$prefix/lib/builder/share/man" "$prefix/share/"
rmdir "$prefix/lib/builder/share"
find "$prefix/share/man" -type f -exec gzip -n9 {} +
# Compiled here: nobody may write there later.
"$work/venv/bin/python" -m compileall -q -s "$stage" "$prefix/lib/builder"

for program in server.builder_server.cli worker.builder_worker.cli client.builder_client.cli \
    inspect.builder_client.inspect web.builder_web.cli db.builder_web.administration.cli \
    provision.builder_provision.cli; do
    file=$prefix/bin/builder-${program%%.*}
    sed -e "s|/usr/bin/python3|/usr/local/bin/python3.${python_suffix#3}|" -e 's|/usr/lib|/usr/local/lib|' \
        -e "s|\${module}|${program#*.}|" "$root/debian/program.in" >"$file"
    chmod 755 "$file"
done
install -m 755 "$root/freebsd/rc.d/builder_server" "$root/freebsd/rc.d/builder_worker" "$root/freebsd/rc.d/builder_web" \
    "$prefix/etc/rc.d/"
install -m 755 "$root/freebsd/builder_worker.sh" "$prefix/libexec/"
install -m 644 "$root/freebsd/jail.conf.sample" "$root"/docs/examples/*.toml "$prefix/share/examples/builder/"
install -m 600 "$root/freebsd/server.env" "$prefix/etc/builder/server.env.sample"
install -m 600 "$root/freebsd/web.env" "$prefix/etc/builder/web.env.sample"
install -m 644 "$root"/templates/* "$prefix/share/builder/templates/"
install -m 644 "$root/README.md" "$root/LICENSE" "$root/docs/freebsd.md" "$prefix/share/doc/builder/"

sed -e "s|%%VERSION%%|$version|" -e "s|%%ABI%%|$(pkg config ABI)|" -e "s|%%PYTHON_SUFFIX%%|$python_suffix|g" \
    -e "s|%%PYTHON_VERSION%%|$python_version|" -e "s|%%SQLITE_VERSION%%|$sqlite_version|" "$here/MANIFEST.in" >"$work/meta/+MANIFEST"

# The list of files. A sample becomes the file itself, unless the operator has one: pkg's @sample.
(cd "$prefix" && find . -type f | sed 's|^\./||; s|^.*\.env\.sample$|@sample(root,wheel,600) &|' | LC_ALL=C sort) \
    >"$work/plist"
pkg create -m "$work/meta" -p "$work/plist" -r "$stage" -o "$output"
