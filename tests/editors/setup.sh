#!/usr/bin/env bash
# Installs the editors for the tests into build/editors of this checkout, from Debian packages, PyPI and npm only.
# The three set-ups run in parallel. If one fails, build/editors/NAME.missing contains the reason and the tests of that
# editor are skipped with it. Editors that are installed already are left unchanged.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
mkdir -p build/editors

set_up() { # NAME SCRIPT
  local name=$1 script=$2 log=build/editors/$1.log start=$SECONDS
  rm -f "build/editors/$name.missing"
  if timeout --kill-after=10 900 "$script" >"$log" 2>&1; then
    echo "editors: $name: installed ($((SECONDS - start)) s)"
  else
    { echo "$script failed:"; tail -n 3 "$log"; } | tr '\n' ' ' >"build/editors/$name.missing"
    echo "editors: $name: NOT INSTALLED, its tests will be skipped: $(cat "build/editors/$name.missing")"
  fi
}

set_up neovim tests/editors/neovim/setup.sh &
set_up emacs tests/editors/emacs/setup.sh &
set_up vscode tests/editors/setup_vscode.sh &
wait
