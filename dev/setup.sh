#!/usr/bin/env bash
# Makes .venv at the root: Python, the PyTorch build that fits the machine, the packages of pyproject.toml in the
# versions of constraints.txt, and nanochat itself with its Rust extension. Safe to run at any time, from anywhere;
# repairs what an interrupted set-up left behind. --dev adds what dev/test.sh needs.
set -euo pipefail
# shellcheck source=dev/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

VENV="$ROOT/.venv"
STAMP="$VENV/setup.stamp"           # written last: what the finished .venv was made from
UNFINISHED="$VENV/setup.unfinished" # exists while packages are being written
SETUP_LOG="$VENV/setup.log"
WHEELS=https://download.pytorch.org/whl
TORCH='torch>=2.9,<3'
[ "$SYSTEM" != Darwin ] || TORCH='torch>=2.14,<3' # older ones compute wrong numbers on MPS at our shapes
OLDEST=310 NEWEST=314 # 100 x major + minor
DEV='' FROM_DRIVER='' UV='' FOUND=''

# Where packages come from is up to the user. Other settings of pip and uv (constraints, hashes, a target, no
# dependencies, a relocatable .venv) would make a .venv that is not the tested one, or none at all.
says_where() { # NAME OF A VARIABLE: whether it says where packages come from
  case $1 in
    PIP_*INDEX* | PIP_FIND_LINKS | PIP_TRUSTED_HOST | PIP_*CERT | PIP_PROXY | PIP_*TIMEOUT | PIP_*RETRIES) ;;
    PIP_*CACHE_DIR | PIP_KEYRING_PROVIDER | PIP_USE_FEATURE | PIP_CONFIG_FILE) ;;
    UV_*INDEX* | UV_FIND_LINKS | UV_OFFLINE | UV_*HOST | UV_*CERT* | UV_*TLS | UV_*TIMEOUT | UV_*RETRIES) ;;
    UV_*CREDENTIALS* | UV_*CACHE* | UV_KEYRING_PROVIDER | UV_*CONFIG* | UV_PYTHON_* | UV_*MANAGED_PYTHON) ;;
    UV_LINK_MODE | UV_CONCURRENT_*) ;;
    *) return 1 ;;
  esac
}
for name in ${!PIP_@} ${!UV_@}; do says_where "$name" || unset "$name"; done

# ---- is there anything to do? ---------------------------------------------------------------------

fingerprint() { # of all that the .venv depends on. It contains absolute paths, so where it is counts as well.
  local sources python
  cd "$ROOT"
  sources=$(cat pyproject.toml constraints.txt Cargo.* rustbpe/Cargo.toml rustbpe/src/*.rs 2>/dev/null | cksum) || true
  python=$("$PYTHON" -c 'import platform as p; print(p.python_version(), p.machine())' 2>/dev/null) || python=broken
  printf '%s\n' "$sources $python $ROOT"
}

up_to_date() {
  local made_from='' extras='' extension='' cargo
  { read -r made_from && read -r extras && read -r extension; } 2>/dev/null <"$STAMP" || return 1
  [ "$made_from" = "$(fingerprint)" ] || return 1
  [ -z "$DEV" ] || [ "$extras" = dev ] || return 1
  # An extension that couldn't be built is tried again if this was called by hand, or if cargo has changed.
  cargo=$(command -v cargo || true)
  [ "$extension" = built ] || [ -z "$cargo" ] || { [ -n "$FROM_DRIVER" ] && [ "$extension" = "not by $cargo" ]; }
}

# ---- sign of life ---------------------------------------------------------------------------------

BEATS=0
heartbeat() { # LABEL MARK: while the file MARK exists; on a terminal every second on one line, else every 30 s
  local begun=$SECONDS next=30 line
  while sleep 1 >/dev/null 2>&1 && [ -e "$2" ] && kill -0 $$ 2>/dev/null; do
    line="  $1 ... $((SECONDS - begun)) s"
    if [ -t 1 ]; then
      printf '\r%s  %.50s\033[K' "$line" "$(tail -n 1 "$SETUP_LOG" | sed 's/^ *//')"
    elif [ $((SECONDS - begun)) -ge $next ]; then
      printf '%s\n' "$line"
      next=$((next + 30))
    fi
  done
}

run() { # LABEL COMMAND...: its output goes to the log
  local label=$1 status=0 mark
  shift
  BEATS=$((BEATS + 1)) mark="$VENV/setup.lives.$BEATS"
  printf '\n== %s: %s\n' "$label" "$*" >>"$SETUP_LOG"
  touch "$mark"
  heartbeat "$label" "$mark" & # the mark ends it, because a kill gets lost if the child has only just been forked
  ("$@") >>"$SETUP_LOG" 2>&1 || status=$? # in the foreground, so that Ctrl-C reaches it
  rm -f "$mark"
  [ ! -t 1 ] || printf '\r\033[K'
  return $status
}

must() { # LABEL COMMAND...
  local said why
  run "$@" && return 0
  said=$(tail -n 15 "$SETUP_LOG")
  printf '%s\n' "$said" >&2
  rm -f "$UNFINISHED" # it was not killed: what is installed is sound, and the next run completes it
  if printf '%s\n' "$said" | grep -Eiq "$NO_NETWORK"; then
    why="Is the network up?"
  elif ! why=$(printf '%s\n' "$said" | grep -Ei '^ *(error|fatal)' | tail -n 1); then
    why=$(printf '%s\n' "$said" | sed -n '/[^ ]/h; ${ x; p; }')
  fi
  fail 1 "set-up stopped at: $1. $why Then: bash dev/setup.sh (the full output: $SETUP_LOG)"
}
# In the words of pip and uv.
NO_NETWORK='connection ?(error|broken|refused|reset|aborted)|connect error|timed out|timeouterror|name resolution'
NO_NETWORK="$NO_NETWORK|name or service not known|nodename nor servname|unreachable|proxyerror|sslerror"
NO_NETWORK="$NO_NETWORK|error sending request|dns error"

# ---- Python ---------------------------------------------------------------------------------------

PROBE='import platform, sys
try:
    import ensurepip, venv
except ImportError:
    ensurepip = None
version = 100 * sys.version_info[0] + sys.version_info[1]
print(version, platform.machine(), "venv" if ensurepip else "no-venv", sys.executable)'

on_arm_mac() { # also in a shell that itself runs under Rosetta, where uname says x86_64
  [ "$SYSTEM" = Darwin ] || return 1
  [ "$(uname -m)" = arm64 ] || [ "$(sysctl -n hw.optional.arm64 2>/dev/null)" = 1 ]
}

TOO_OLD='' FOREIGN='' NO_VENV=''
usable() { # CANDIDATE -> FOUND, or a note why not. Runs it, because a shim of pyenv may have nothing behind it.
  local version='' machine='' venv='' path=''
  read -r version machine venv path < <("$1" -c "$PROBE" 2>/dev/null) || return 1
  if [ "$version" -lt $OLDEST ] || [ "$version" -gt $NEWEST ]; then
    TOO_OLD="$path is Python $((version / 100)).$((version % 100))"
  elif [ "$machine" != arm64 ] && on_arm_mac; then
    FOREIGN=$path
  elif [ "$venv" = no-venv ] && [ -z "$UV" ]; then
    NO_VENV="$((version / 100)).$((version % 100))"
  else
    FOUND=$path
    return 0
  fi
  return 1
}

find_python() { # -> FOUND, the newest that works; or fail with the remedy
  local name candidate
  [ -z "$FOUND" ] || return 0
  for name in python3.14 python3.13 python3.12 python3.11 python3.10 python3 python; do
    while read -r candidate; do
      # Without the command line tools, this one only opens a window that offers to install them.
      if [ "$SYSTEM:$candidate" = Darwin:/usr/bin/python3 ] && ! xcode-select -p >/dev/null 2>&1; then continue; fi
      ! usable "$candidate" || return 0
    done < <(type -aP $name)
  done
  if [ -n "$UV" ]; then # it may have one of its own, or can fetch one
    candidate=$(UV_PYTHON_DOWNLOADS=never uv python find '>=3.10,<3.15' 2>/dev/null) && usable "$candidate" && return 0
    say "No Python 3.10 to 3.14 on PATH: uv fetches Python 3.13 (about 35 MB)."
    uv python install 3.13 >&2 && usable "$(uv python find 3.13)" && return 0
  fi
  if [ -n "$FOREIGN" ]; then
    fail 1 "$FOREIGN is an x86_64 Python, which this Mac runs under Rosetta, 2 to 3 times slower: install a native" \
      "one (/opt/homebrew/bin/brew install python@3.13)," \
      "then: rm -rf .venv; PATH=/opt/homebrew/bin:\$PATH bash dev/setup.sh"
  elif [ -n "$NO_VENV" ]; then
    fail 1 "this Python $NO_VENV comes without venv: apt install python$NO_VENV-venv (or python3-venv)," \
      "then: bash dev/setup.sh"
  elif [ "$SYSTEM" = Darwin ]; then
    fail 1 "Python 3.10 to 3.14 is needed${TOO_OLD:+, $TOO_OLD}: brew install python@3.13" \
      "(or get it from https://www.python.org), then: bash dev/setup.sh"
  fi
  fail 1 "Python 3.10 to 3.14 is needed${TOO_OLD:+, $TOO_OLD}: install one (Debian: apt install python3 python3-venv)" \
    "or uv (https://docs.astral.sh/uv), then: bash dev/setup.sh"
}

whole() { # whether it is native and was made here; maybe by hand
  local activate place quotes=\'\"\\\\
  [ ! -e "$UNFINISHED" ] || return 1
  activate=$(tr -d "$quotes" 2>/dev/null <"$VENV/bin/activate") || return 1
  place=$(printf %s "$VENV" | tr -d "$quotes") # venv and uv quote an apostrophe in the path differently
  case $activate in *"VIRTUAL_ENV=$place"*) usable "$PYTHON" ;; *) return 1 ;; esac
}

check_place() { # or we would change something through a link, or remove what this set-up did not make
  local inside
  inside=$(find "$VENV" -mindepth 1 -maxdepth 1 ! -name 'setup.*' 2>/dev/null || true)
  if [ -L "$VENV" ]; then
    fail 2 "$VENV is a link, and set-up would change what it points to: rm $(printf %q "$VENV")," \
      "then: bash dev/setup.sh"
  elif [ ! -e "$VENV" ]; then
    find_python # fails before it leaves a .venv behind
    check_ours "$ROOT" "$ROOT"
    return 0
  fi
  check_ours "$VENV" "$VENV"
  if [ ! -d "$VENV" ] || { [ ! -e "$SETUP_LOG" ] && [ -n "$inside" ] && ! whole; }; then
    fail 2 "$VENV can't be used, and this set-up did not make it, so won't remove it:" \
      "mv $(printf '%q %q' "$VENV" "$VENV.old"), then: bash dev/setup.sh"
  fi
}

make_venv() {
  if whole; then
    "$PYTHON" -m pip --version >/dev/null 2>&1 || [ -z "$UV" ] || run "pip" uv pip install --python "$PYTHON" pip
    return 0
  fi
  [ ! -e "$VENV/bin" ] || say "This .venv is broken, unfinished, foreign or was moved: making it from scratch."
  find_python
  find "$VENV/" -mindepth 1 -maxdepth 1 ! -name 'setup.lo*' -exec rm -rf {} +
  say "Making .venv with $("$FOUND" -V) ($FOUND)${UV:+ by uv}."
  touch "$UNFINISHED"
  if [ -n "$UV" ]; then
    must "uv venv" uv venv --seed --allow-existing --python "$FOUND" "$VENV"
  else
    must "python -m venv" "$FOUND" -m venv "$VENV"
  fi
}

# ---- packages -------------------------------------------------------------------------------------

install() {
  if [ -n "$UV" ]; then
    uv pip install --python "$PYTHON" ${FIND_LINKS[@]+"${FIND_LINKS[@]}"} "$@"
  else
    "$PYTHON" -m pip install --progress-bar off "$@"
  fi
}

read_pip_conf() { # takes over where packages come from and ignores the rest -> FIND_LINKS, which uv doesn't read
  local name key value
  while IFS='=' read -r key value; do # install.index-url='...'; a list has one value per line, shown as \n
    name=PIP_$(printf %s "${key#*.}" | tr '[:lower:]-' '[:upper:]_')
    value=${value#?} value=${value%?}
    if says_where "$name" && [ -z "${!name-}" ]; then export "$name=${value//\\n/ }"; fi
  done < <("$PYTHON" -m pip config list 2>/dev/null | grep -E '^(install|global|:env:)[.]' | sort -r)
  export PIP_CONFIG_FILE=/dev/null PIP_DISABLE_PIP_VERSION_CHECK=1
  FIND_LINKS=()
  for value in ${PIP_FIND_LINKS-}; do FIND_LINKS+=(--find-links "$value"); done
}

reachable() { # URL, within about 5 seconds; the timer is for a name server that does not answer
  "$PYTHON" -c 'import os, sys, threading, urllib.request
threading.Timer(6, os._exit, [1]).start()
try:
    urllib.request.urlopen(sys.argv[1], timeout=5)
except Exception:
    os._exit(1)
os._exit(0)' "$1"
}

which_torch() { # -> BUILD: cpu, cu126, or empty for the plain one
  local driver='' best=0 version capability
  BUILD=''
  [ "$SYSTEM" != Darwin ] || return 0
  nvidia-smi -L >/dev/null 2>&1 || { BUILD=cpu; return 0; }
  while IFS=', ' read -r version capability; do # 535.104.05, 8.6
    version=${version%%.*} capability=${capability/./}
    case $version:$capability in *[!0123456789:]* | :* | *:) continue ;; esac
    driver=$version
    [ "$capability" -le "$best" ] || best=$capability
  done < <(nvidia-smi --query-gpu=driver_version,compute_cap --format=csv,noheader 2>/dev/null)
  # The plain build is for CUDA 13, with kernels from compute capability 7.5 on. The one for CUDA 12.6 has none
  # from 10.0 on, and needs driver 525.
  if [ -z "$driver" ] || { [ "$driver" -ge 580 ] && [ "$best" -ge 75 ]; }; then
    return 0
  elif [ "$driver" -lt 525 ] || [ "$best" -ge 100 ]; then
    say "NVIDIA's driver $driver is too old for PyTorch on this GPU: update it to 580 or newer." \
      "Until then the CPU is used."
  else
    say "PyTorch for CUDA 12.6 fits this GPU (driver $driver, compute capability ${best%?}.${best#"${best%?}"})."
    BUILD=cu126
  fi
}

install_torch() { # the build that fits the machine
  local tested=(-c "$ROOT/constraints.txt" "$TORCH") index size="about 3 GB with its CUDA libraries"
  run "PyTorch, if it is already here" install --no-index --no-deps "${tested[@]}" && return 0
  which_torch
  index=$WHEELS/$BUILD
  [ "$BUILD" != cpu ] || size="about 200 MB"
  [ "$SYSTEM" != Darwin ] || size="about 150 MB"
  if [ -z "$BUILD" ]; then
    say "Fetching PyTorch: $size."
  elif run "looking for PyTorch's $BUILD build" reachable "$index/torch/"; then
    say "Fetching PyTorch's $BUILD build: $size."
    run "PyTorch" install --index-url "$index" --no-deps "${tested[@]}" && return 0
    # An older one that this GPU can use is better than the tested one, which it can't.
    [ "$BUILD" = cpu ] || ! run "PyTorch" install --index-url "$index" --no-deps "$TORCH" || return 0
    say "That did not work: taking the plain build instead, about 3 GB with its CUDA libraries."
  elif run "PyTorch from pip's own folders" install --no-index --no-deps "$TORCH"; then
    return 0 # maybe older than the tested one, but the user's choice
  else
    say "$index can't be reached. Fetching the plain PyTorch: about 3 GB with its CUDA libraries."
  fi
  must "PyTorch" install "${tested[@]}"
}

READ_PYPROJECT='import sys
try:
    import tomllib
except ImportError:  # Python 3.10
    from pip._vendor import tomli as tomllib
with open(sys.argv[1], "rb") as file:
    toml = tomllib.load(file)
print(*toml["build-system"]["requires"], *toml["project"]["dependencies"], sep="\n")
print(*toml["project"]["optional-dependencies"]["dev"] if sys.argv[2:] else [], sep="\n")'

install_packages() { # in the tested versions, but with the torch that we now have
  "$PYTHON" -c "$READ_PYPROJECT" "$ROOT/pyproject.toml" ${DEV:+dev} >"$VENV/requirements.txt"
  sed '/^torch==/d' "$ROOT/constraints.txt" >"$VENV/constraints.txt"
  "$PYTHON" -c 'from importlib.metadata import version; print("torch==" + version("torch"))' >>"$VENV/constraints.txt"
  must "packages" install -r "$VENV/requirements.txt" -c "$VENV/constraints.txt"
}

# ---- nanochat itself ------------------------------------------------------------------------------

install_nanochat() { # -> EXTENSION: built, or not and by which cargo
  local cargo path_file why remedy
  path_file="$("$PYTHON" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/nanochat-root.pth"
  cargo=$(command -v cargo || true)
  if [ -n "$cargo" ]; then
    # maturin is installed already; an isolated build would fetch it again.
    export PATH="$VENV/bin:$PATH" CARGO_NET_RETRY="${CARGO_NET_RETRY:-1}" CARGO_HTTP_TIMEOUT="${CARGO_HTTP_TIMEOUT:-15}"
    if run "building the Rust extension" \
      install --no-build-isolation --no-deps ${UV:+--reinstall-package nanochat} -e "$ROOT"; then
      rm -f "$path_file"
      EXTENSION=built
      return 0
    fi
    why="could not be built" remedy="see why in $SETUP_LOG"
  else
    why="can't be built without a Rust compiler" remedy="install Rust from https://rustup.rs"
  fi
  say "The Rust extension $why: the tokenizers package trains the tokenizer instead, and everything else works." \
    "To get it: $remedy, then bash dev/setup.sh"
  printf '%s\n' "$ROOT" >"$path_file" # so that `import nanochat` still works from anywhere
  EXTENSION="not by $cargo"
}

# ---- main -----------------------------------------------------------------------------------------

for argument in "$@"; do
  case $argument in
    --dev) DEV=1 ;;
    --from-driver) FROM_DRIVER=1 ;;
    *) fail 2 "setup.sh: unknown argument $argument; it takes --dev, which adds what dev/test.sh needs" ;;
  esac
done
if up_to_date; then
  [ -n "$FROM_DRIVER" ] || say "Nothing to do: $VENV is up to date."
  exit 0
fi
! uv --version >/dev/null 2>&1 || UV=1
[ "$(sed -n 2p "$STAMP" 2>/dev/null)" != dev ] || DEV=1 # once installed, it is kept up to date
if [ "$SYSTEM" = Darwin ] && ! on_arm_mac; then
  fail 1 "this Mac has an Intel processor, and PyTorch stopped building for those with 2.2:" \
    "use a Mac with Apple silicon, or Linux"
fi
check_place
mkdir -p "$VENV"
take_lock "$VENV/setup.lock" "$VENV"
trap 'printf "\n"; fail 130 "Set-up interrupted: the next one repairs it."' INT TERM
if [ -x "$PYTHON" ]; then
  say "Bringing $VENV up to date."
else
  say "Setting up $VENV. Needed only once; fetches PyTorch and about 150 MB of other packages."
fi
: >"$SETUP_LOG"
LOG_FILE=$SETUP_LOG
rm -f "$STAMP"
make_venv
touch "$UNFINISHED"
read_pip_conf
install_torch
install_packages
install_nanochat
must "a first look at PyTorch" "$PYTHON" -c 'import numpy, pyarrow, tokenizers, torch; print(torch.__version__)'
printf '%s\n' "$(fingerprint)" "${DEV:+dev}" "$EXTENSION" >"$STAMP"
rm -f "$UNFINISHED"
say "Set up in $SECONDS s: PyTorch $(tail -n 1 "$SETUP_LOG"), Rust extension ${EXTENSION/by*/built}."
