#!/usr/bin/env bash
# Every check that CI runs; sets the machine up first. A part that fails does not stop the others. Ends with the
# time of each part and pytest's last line.
#   bash dev/test.sh                 everything
#   bash dev/test.sh --fast          under 90 s: lint, types, and the tests that are not marked e2e, browser or slow
#   bash dev/test.sh [--fast] -k lock tests/dev       anything else goes to pytest
set -euo pipefail
# shellcheck source=dev/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

FAST=''
if [ "${1-}" = --fast ]; then
  FAST=1
  shift
fi
cd "$ROOT"
bash dev/setup.sh --dev || exit $?
PATH="$ROOT/.venv/bin:$PATH"
unset_variables # the tests must not depend on what the caller has set for runs of their own
unset PYTHONDONTWRITEBYTECODE # or every process would compile nanochat, and pytest every test, once more

TIMES='' FAILED=''
part() { # NAME COMMAND...
  local name=$1 begun=$SECONDS mark=''
  shift
  printf '\n--- %s\n' "$name"
  if ! "$@"; then
    FAILED="$FAILED $name" mark='  FAILED'
  fi
  TIMES="$TIMES$(printf '%-12s %4d s%s' "$name" $((SECONDS - begun)) "$mark")
"
}

from_debian() { # PROGRAM: installs it where we may; otherwise what needs it is skipped and says so
  if ! command -v "$1" >/dev/null && command -v apt-get >/dev/null && [ "$(id -u)" = 0 ]; then
    { apt-get install -qq -y "$1" || { apt-get update -qq && apt-get install -qq -y "$1"; }; } >/dev/null 2>&1 || true
  fi
}

bash_check() {
  local file status=0
  for file in dev/*.sh; do bash -n "$file" || status=1; done
  from_debian shellcheck
  if command -v shellcheck >/dev/null; then
    printf '%s\n' dev/*.sh | xargs -n 1 -P 2 shellcheck -x -s bash || status=1
  else
    echo "SKIPPED: shellcheck is not installed (apt install shellcheck, or brew install shellcheck)"
  fi
  return $status
}

rust_check() {
  command -v cargo >/dev/null || { echo "SKIPPED: cargo is not installed (https://rustup.rs)"; return 0; }
  cargo test --quiet && cargo clippy --quiet --all-targets --all-features -- -D warnings && cargo fmt --check
}

python_tests() { # keeps a copy of the output, for its last line
  [ -n "$FAST" ] || from_debian chromium # for the tests in a browser
  # Two workers, each with one thread that sleeps while it waits, as in every command (system/cli.py). Threads that
  # spin take the cores away from each other: the tests in tests/training then need 7 times the CPU.
  export OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE
  # The ci profile draws the same examples each time, so a failure comes from the change under test. A plain
  # `pytest` draws new ones.
  python -m pytest -n 2 --dist loadfile --hypothesis-profile=ci "$@" 2>&1 | tee "$PYTEST_LOG"
}

PYTEST_LOG=$(mktemp "${TMPDIR:-/tmp}/nanochat-test.XXXXXX")
trap 'rm -f "$PYTEST_LOG"' EXIT
part format ruff format --check .
part lint ruff check .
if grep -q '^\[tool\.pyrefly' pyproject.toml; then part types pyrefly check; fi
part bash bash_check
if [ -n "$FAST" ]; then
  part pytest python_tests -m "not e2e and not browser and not slow" "$@"
else
  part rust rust_check
  part "gpu bench" python bench/gpu.py --tiny
  part pytest python_tests "$@"
fi

printf '\n--- times\n%s' "$TIMES"
[ -z "$FAILED" ] || printf 'FAILED:%s\n' "$FAILED"
tail -n 1 "$PYTEST_LOG"
[ -z "$FAILED" ] || exit 1
