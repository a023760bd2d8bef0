#!/usr/bin/env bash
# The editors that the tests drive, in build/editors of this checkout: Debian packages, PyPI and npm, nothing else.
# The three are set up side by side. One that cannot be had here does no harm: build/editors/NAME.missing says why, and
# its tests are skipped with that reason. Does nothing a second time.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
mkdir -p build/editors

set_up() { # NAME SCRIPT
  local name=$1 script=$2 log=build/editors/$1.log began=$SECONDS
  rm -f "build/editors/$name.missing"
  if timeout --kill-after=10 900 "$script" >"$log" 2>&1; then
    echo "editors: $name is there ($((SECONDS - began)) s)"
  else
    { echo "$script failed:"; tail -n 3 "$log"; } | tr '\n' ' ' >"build/editors/$name.missing"
    echo "editors: $name IS NOT THERE, its tests will be skipped: $(cat "build/editors/$name.missing")"
  fi
}

set_up neovim tests/editors/neovim/setup.sh &
set_up emacs tests/editors/emacs/setup.sh &
set_up vscode tests/editors/setup_vscode.sh &
wait
