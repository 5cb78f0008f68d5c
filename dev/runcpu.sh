#!/usr/bin/env bash
# From a bare machine to a first chat, and the smoke test of everything: a small model (depth 4) on the
# built-in world. `bash dev/runcpu.sh --help` lists the variables; nanochat/stages.py lists the stages.
set -euo pipefail
# shellcheck source=dev/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

# Every variable is checked here, before anything is installed.
begin "Trains a small ChatGPT (depth 4) from scratch, then tells you how to chat with it.
For one that answers: TIME_BUDGET=20m bash dev/runcpu.sh" "$@"

if [ -z "$TIME_BUDGET_S" ]; then # otherwise the plan chooses what learns most in that time
  default DEPTH 4
  default DATA_SHARDS 4
fi
default_iterations 50 100 100
default NANOCHAT_DATA tinyworld

prepare
make_plan --tokenizer_max_chars=500000000

run_stages # the rows of nanochat/stages.py; each is a script in scripts/
finish
