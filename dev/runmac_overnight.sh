#!/usr/bin/env bash
# Like runcpu.sh, but bigger: depth 6, and web text if the network is up. For a night, on a Mac or elsewhere:
#   TIME_BUDGET=8h bash dev/runmac_overnight.sh
set -euo pipefail
# shellcheck source=dev/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

# Every variable is checked here, before anything is installed.
begin "Trains a ChatGPT (depth 6) from scratch, on web text if the network is up,
then tells you how to chat with it. TIME_BUDGET=8h uses the night." "$@"

check_ours "$ROOT" "$ROOT" # the report is copied there in the morning
default DEPTH 6
default_iterations 500 150 150
default DATA_SHARDS 50
default NANOCHAT_DATA auto

prepare
make_plan --tokenizer_max_chars=1000000000

run_stages
finish
