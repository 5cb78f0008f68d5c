#!/usr/bin/env bash
# From a bare machine to a first chat, and the smoke test of everything: a small model (depth 4) on the
# built-in world. `bash dev/runcpu.sh --help` lists the variables; all stages are in nanochat/stages.py.
set -euo pipefail
# shellcheck source=dev/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

# Every variable is checked here, before anything is installed.
begin "Trains a small ChatGPT from nothing (depth 4) and says how to chat with it.
For one that answers: TIME_BUDGET=20m bash dev/runcpu.sh" "$@"

if [ -z "$TIME_BUDGET_S" ]; then # else the plan chooses what learns most in that time
  default DEPTH 4
  default DATA_SHARDS 4
fi
default_iterations 50 100 100
default NANOCHAT_DATA tinyworld

prepare
make_plan --tokenizer_max_chars=500000000

stage data
stage tokenizer
stage base_train
stage base_eval
stage mid_train
stage chat_sft
stage chat_eval
stage report
finish
