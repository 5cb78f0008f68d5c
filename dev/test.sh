#!/usr/bin/env bash
# Every check that CI runs, on a machine that it sets up itself. All parts run, whatever fails; the time of each
# is shown, and pytest's closing line comes last.
#   bash dev/test.sh                 everything
#   bash dev/test.sh --fast          under 90 s: lint, types, and the tests that are neither end to end nor in a browser
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
# What the caller has set for his own runs must not steer the tests.
unset MEMORY_SIZE DEVICE_BATCH_SIZE TOTAL_BATCH_SIZE EVAL_TOKENS SPLIT_TOKENS DEPTH BASE_ITERATIONS MID_ITERATIONS \
  SFT_ITERATIONS DATA_SHARDS MAX_SEQ_LEN VOCAB_SIZE NANOCHAT_BASE_DIR NANOCHAT_DATA MODEL_TAG WANDB_RUN TIME_BUDGET FRESH

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

from_debian() { # PROGRAM: installed where that is allowed; what needs it is skipped otherwise, and says so
  if ! command -v "$1" >/dev/null && command -v apt-get >/dev/null && [ "$(id -u)" = 0 ]; then
    { apt-get install -qq -y "$1" || { apt-get update -qq && apt-get install -qq -y "$1"; }; } >/dev/null 2>&1 || true
  fi
}

bash_check() {
  local file status=0
  for file in dev/*.sh; do bash -n "$file" || status=1; done
  from_debian shellcheck
  if command -v shellcheck >/dev/null; then
    shellcheck -x -s bash dev/*.sh || status=1
  else
    echo "SKIPPED: shellcheck is not here (apt install shellcheck, or brew install shellcheck)"
  fi
  return $status
}

rust_check() {
  command -v cargo >/dev/null || { echo "SKIPPED: no cargo here (https://rustup.rs)"; return 0; }
  cargo test --quiet && cargo clippy --quiet --all-targets --all-features -- -D warnings && cargo fmt --check
}

python_tests() { # keeps a copy, so that the closing line can be the last
  [ -n "$FAST" ] || from_debian chromium # for the tests in a browser
  # The same examples each time: what a change did not break can't fail it. A plain `pytest` draws others.
  python -m pytest -n 2 --dist loadfile --hypothesis-profile=ci "$@" 2>&1 | tee "$PYTEST_LOG"
}

PYTEST_LOG=$(mktemp "${TMPDIR:-/tmp}/nanochat-test.XXXXXX")
trap 'rm -f "$PYTEST_LOG"' EXIT
part format ruff format --check .
part lint ruff check .
if grep -q '^\[tool\.pyrefly' pyproject.toml; then part types pyrefly check; fi
part bash bash_check
if [ -n "$FAST" ]; then
  part pytest python_tests -m "not e2e and not browser" "$@"
else
  part rust rust_check
  part "gpu bench" python bench/gpu.py --tiny
  part pytest python_tests "$@"
fi

printf '\n--- times\n%s' "$TIMES"
[ -z "$FAILED" ] || printf 'FAILED:%s\n' "$FAILED"
tail -n 1 "$PYTEST_LOG"
[ -z "$FAILED" ] || exit 1
