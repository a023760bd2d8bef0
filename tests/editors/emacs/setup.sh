#!/bin/bash
# setup.sh: installs terminal Emacs on this machine and lsp-mode in build/editors/emacs, unless they are there already.
set -euo pipefail
HERE=$(cd "$(dirname "$0")" && pwd)
. "$HERE/../neovim/debian.sh"
DEST=$(cd "$HERE/../../.." && pwd)/build/editors

system emacs emacs-nox
[ -f "$DEST/emacs/done" ] && exit 0
rm -rf "$DEST/emacs"
unpack forky "$DEST/emacs" alone elpa-lsp-mode elpa-dash elpa-f elpa-ht elpa-s elpa-spinner elpa-markdown-mode elpa-lv
emacs --version | head -n 1
touch "$DEST/emacs/done"
