#!/usr/bin/env bash
# Shows how far the newest model (or MODEL_TAG) got, and finishes it from the exact step at which it stopped.
# Everything comes from its plan; nanochat/variables.txt says which variables may still change.
set -euo pipefail
# shellcheck source=dev/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

# Every variable is checked here, before anything is installed.
begin "Finishes the newest model (or MODEL_TAG) from where it stopped, by its own plan.
Only these may change, all other variables must agree with it: $(names_of changeable)" "$@"
[ "${FRESH:-0}" = 0 ] ||
  fail 2 "FRESH=1: $PROGRAM continues a run. To start another one: FRESH=1 bash dev/runcpu.sh"

prepare
TAG=${MODEL_TAG-}
[ -n "$TAG" ] || TAG=$(pipeline newest_tag) || exit $?
for part in "$NANOCHAT_BASE_DIR"/*_checkpoints/"$TAG" "$NANOCHAT_BASE_DIR"/metrics/*_"$TAG".jsonl; do
  check_ours "$part" "$NANOCHAT_BASE_DIR" # another user may have started this one
done

set_flags fixed # Python refuses those that differ from the plan
status=0
pipeline status --model_tag="$TAG" ${FLAGS[@]+"${FLAGS[@]}"} | tee -a "$LOG_FILE" || status=$?
case $status in
  0) [ -z "$PLAN_ONLY" ] || exit 0 ;;
  3) exit 0 ;; # nothing left to do
  *) exit $status ;;
esac

set_flags changeable
run_stages
finish
