#!/usr/bin/env bash
# Drives every editor that is here, three at a time since each mostly waits; the logs follow one after another.
# Exit code 1 if anything failed. Faults are planted by the tests themselves; see the top of each test file.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
mkdir -p build/editors
names=(vscode neovim emacs)

running=()
for name in "${names[@]}"; do
  .venv/bin/python -m pytest -p no:cacheprovider -m editors "tests/editors/$name" >"build/editors/$name.tests.log" 2>&1 &
  running+=($!)
done
failed=0
for index in "${!names[@]}"; do
  wait "${running[$index]}" || failed=1
  echo "--- ${names[$index]}"
  cat "build/editors/${names[$index]}.tests.log"
done
exit "$failed"
