#!/usr/bin/env bash
# Drives every editor that is here. VS Code takes about as long as the other two together, so they go side by side.
# Exit code 1 if anything failed. Faults are planted by the tests themselves; see the top of each test file.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
mkdir -p build/editors

drive() { # NAME...
  local name failed=0
  for name in "$@"; do
    .venv/bin/python -m pytest -p no:cacheprovider -m editors "tests/editors/$name" >"build/editors/$name.tests.log" 2>&1 ||
      failed=1
  done
  return "$failed"
}

drive vscode &
beside=$!
drive neovim emacs
failed=$?
wait "$beside" || failed=1
for name in vscode neovim emacs; do
  echo "--- $name"
  cat "build/editors/$name.tests.log"
done
exit "$failed"
