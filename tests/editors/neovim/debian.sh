# To be sourced. Unpacks Debian packages of any suite into a folder, or installs one of the machine's own suite.
# Needs apt-get and dpkg-deb, and uses the mirror of this machine's apt configuration. $DEST must be build/editors.

_mirror() {
  sed -nE 's/^(URIs:|deb) +(\[[^]]*\] +)?(https?[^ ]*\/debian)\/?( .*)?$/\3/p' \
    /etc/apt/sources.list /etc/apt/sources.list.d/*.sources /etc/apt/sources.list.d/*.list 2>/dev/null | head -n 1 || true
}

# system COMMAND PACKAGE: installs a package of this machine's suite if COMMAND is missing. Calls are serialised.
system() {
  command -v "$1" >/dev/null && return
  mkdir -p "$DEST"
  (
    flock 9
    export DEBIAN_FRONTEND=noninteractive
    install=(apt-get -qq -y -o DPkg::Lock::Timeout=300 install --no-install-recommends "$2")
    "${install[@]}" >/dev/null || { apt-get -qq update; "${install[@]}" >/dev/null; }
  ) 9>"$DEST/apt.lock"
}

# unpack SUITE FOLDER closure|alone PACKAGE...: unpacks packages with all dependencies including libc, or alone.
unpack() {
  local suite=$1 folder=$2 how=$3 work from
  shift 3
  work=$(mktemp -d)
  from=$(_mirror)
  mkdir -p "$work"/{lists/partial,cache/archives/partial,etc} "$folder"
  : > "$work/status"
  echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] ${from:?no Debian mirror in /etc/apt} $suite main" \
    > "$work/etc/sources.list"
  cat > "$work/apt.conf" <<C
Dir::Etc::sourcelist "$work/etc/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
Dir::State::lists "$work/lists";
Dir::State::status "$work/status";
Dir::Cache "$work/cache";
Acquire::Languages "none";
Acquire::Retries "3";
APT::Install-Recommends "false";
APT::Sandbox::User "root";
C
  (
    export APT_CONFIG=$work/apt.conf
    cd "$work/cache/archives"
    apt-get -qq update
    case $how in
      closure) apt-get -qq -y -d -o Debug::NoLocking=1 install "$@" ;;
      alone) apt-get -qq download "$@" ;;
    esac
  )
  for deb in "$work"/cache/archives/*.deb; do dpkg-deb -x "$deb" "$folder"; done
  rm -rf "$work"
}
