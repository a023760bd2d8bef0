#!/usr/bin/env bash
# Drives every editor that is here, in three lanes side by side that take about as long: VS Code with the shipped model,
# VS Code with planted faults and inside its extension host, and the other two. Much of each is waiting.
# Exit code 1 if anything failed. Faults are planted by the tests themselves; see the top of each test file.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
mkdir -p build/editors
# Several models at once on few cores: threads that spin while they wait for each other took two fifths of the time.
export OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive

drive() { # LOG ARGUMENT...
  local log=build/editors/$1.tests.log began=$SECONDS failed=0
  shift
  .venv/bin/python -m pytest -p no:cacheprovider -m editors --durations=5 "$@" >"$log" 2>&1 || failed=1
  echo "lane: $((SECONDS - began)) s" >>"$log"
  return "$failed"
}

drive vscode tests/editors/vscode/test_workbench.py &
lanes=("$!")
drive vscode-faults tests/editors/vscode --ignore=tests/editors/vscode/test_workbench.py &
lanes+=("$!")
drive others tests/editors/neovim tests/editors/emacs &
lanes+=("$!")
failed=0
for lane in "${lanes[@]}"; do wait "$lane" || failed=1; done
for name in vscode vscode-faults others; do
  echo "--- $name"
  cat "build/editors/$name.tests.log"
done
exit "$failed"
