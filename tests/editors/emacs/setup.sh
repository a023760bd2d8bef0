#!/bin/bash
# setup.sh : Emacs for the terminal, and lsp-mode in build/editors/emacs of the checkout. Does nothing a second time.
set -euo pipefail
HERE=$(cd "$(dirname "$0")" && pwd)
. "$HERE/../neovim/debian.sh"
DEST=$(cd "$HERE/../../.." && pwd)/build/editors/emacs

if ! command -v emacs > /dev/null; then
  export DEBIAN_FRONTEND=noninteractive
  apt-get -qq -y install --no-install-recommends emacs-nox > /dev/null ||
    { apt-get -qq update && apt-get -qq -y install --no-install-recommends emacs-nox > /dev/null; }
fi
[ -f "$DEST/done" ] && exit 0
rm -rf "$DEST"
unpack forky "$DEST" alone elpa-lsp-mode elpa-dash elpa-f elpa-ht elpa-s elpa-spinner elpa-markdown-mode elpa-lv
emacs --version | head -n 1
touch "$DEST/done"
