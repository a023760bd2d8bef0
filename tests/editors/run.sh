#!/usr/bin/env bash
# Drives every editor that is here, in three lanes side by side that take about as long: VS Code with the shipped model
# and inside its extension host, VS Code with planted faults, and the other two. Much of each is waiting.
# Exit code 1 if anything failed twice. Faults are planted by the tests themselves; see the top of each test file.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
mkdir -p build/editors
# Several models at once on few cores: threads that spin while they wait for each other took two fifths of the time.
export OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive

drive() { # LOG ARGUMENT...
  local name=$1 log=build/editors/$1.tests.log began=$SECONDS failed=0
  shift
  local pytest=(.venv/bin/python -m pytest -o "cache_dir=build/editors/cache/$name" -m editors --durations=5)
  "${pytest[@]}" "$@" >"$log" 2>&1 || failed=1
  # A browser on a busy machine may miss a wait. What fails is driven once more, alone, and that is told.
  if [ "$failed" = 1 ]; then
    echo "editors: $name: $(grep -cE '^(FAILED|ERROR) ' "$log") needed a second try" | tee -a "$log"
    failed=0
    "${pytest[@]}" --last-failed "$@" >>"$log" 2>&1 || failed=1
  fi
  echo "lane: $((SECONDS - began)) s" >>"$log"
  return "$failed"
}

with_the_model=(tests/editors/vscode/test_workbench.py tests/editors/vscode/test_inside.py)
drive vscode "${with_the_model[@]}" &
lanes=("$!")
drive vscode-faults tests/editors/vscode "${with_the_model[@]/#/--ignore=}" &
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
