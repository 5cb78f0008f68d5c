#!/usr/bin/env bash
# The same as runcpu.sh, bigger: depth 6, real text where the net gives it. For a night, on a Mac or elsewhere:
#   TIME_BUDGET=8h bash dev/runmac_overnight.sh
set -euo pipefail
# shellcheck source=dev/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

# Every variable is checked here, before anything is installed.
begin "Trains a ChatGPT from nothing (depth 6) on web text where the net gives it, and says how to chat with it.
TIME_BUDGET=8h uses the night." "$@"

check_ours "$ROOT" "$ROOT" # in the morning the report is copied there
default DEPTH 6
default_iterations 500 150 150
default DATA_SHARDS 50
default NANOCHAT_DATA auto

prepare
make_plan --tokenizer_max_chars=1000000000

stage data
stage tokenizer
stage base_train
stage base_eval
stage mid_train
stage chat_sft
stage chat_eval
stage report
finish
