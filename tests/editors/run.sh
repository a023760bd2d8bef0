#!/usr/bin/env bash
# Runs the tests of all installed editors, in three parallel groups of similar duration: VS Code with the shipped model
# and in its extension host; VS Code with planted faults; Neovim and Emacs. The tests spend much of their time waiting.
# Exit code 1 if a test failed twice. The tests plant their faults themselves; each test file describes them.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
mkdir -p build/editors
# Several models share few cores; OpenMP threads that spin while they wait used two fifths of the CPU time.
export OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive

run_group() { # NAME PYTEST_ARGUMENT...
  local name=$1 log=build/editors/$1.tests.log start=$SECONDS failed=0
  shift
  local pytest=(.venv/bin/python -m pytest -o "cache_dir=build/editors/cache/$name" -m editors --durations=5)
  "${pytest[@]}" "$@" >"$log" 2>&1 || failed=1
  # A browser on a busy machine may exceed a timeout. Failed tests run once more, and this is reported.
  if [ "$failed" = 1 ]; then
    echo "editors: $name: $(grep -cE '^(FAILED|ERROR) ' "$log") needed a second try" | tee -a "$log"
    failed=0
    "${pytest[@]}" --last-failed "$@" >>"$log" 2>&1 || failed=1
  fi
  echo "duration: $((SECONDS - start)) s" >>"$log"
  return "$failed"
}

with_model=(tests/editors/vscode/test_workbench.py tests/editors/vscode/test_extension_host.py)
run_group vscode "${with_model[@]}" &
groups=("$!")
run_group vscode-faults tests/editors/vscode "${with_model[@]/#/--ignore=}" &
groups+=("$!")
run_group others tests/editors/neovim tests/editors/emacs &
groups+=("$!")
failed=0
for group in "${groups[@]}"; do wait "$group" || failed=1; done
for name in vscode vscode-faults others; do
  echo "--- $name"
  cat "build/editors/$name.tests.log"
done
exit "$failed"
