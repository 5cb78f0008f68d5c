#!/usr/bin/env bash
# Shows what there is of the newest model (or of MODEL_TAG) and finishes what is missing, from the exact step
# at which it stopped. Everything is taken from its plan; what may change is in CHANGEABLE (dev/lib.sh).
set -euo pipefail
# shellcheck source=dev/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

# Every variable is checked here, before anything is installed.
begin "Finishes the newest model (or MODEL_TAG) from where it stopped, by the plan that it was started with.
Only DEVICE_BATCH_SIZE, MEMORY_SIZE and TIME_BUDGET may be changed; another variable must agree with the plan." "$@"
[ "${FRESH:-0}" = 0 ] || fail 2 "FRESH=1: continue_training.sh continues what is there. To start another: FRESH=1 bash dev/runcpu.sh"

prepare
TAG=${MODEL_TAG-}
[ -n "$TAG" ] || TAG=$(pipeline newest_tag) || exit $?
for part in "$NANOCHAT_BASE_DIR"/*_checkpoints/"$TAG" "$NANOCHAT_BASE_DIR"/metrics/*_"$TAG".jsonl; do
  check_ours "$part" "$NANOCHAT_BASE_DIR" # another user may have begun this one
done

# shellcheck disable=SC2086 # a list of names
set_flags $FIXED # Python refuses by name what the plan says otherwise
status=0
pipeline status --model_tag="$TAG" ${FLAGS[@]+"${FLAGS[@]}"} | tee -a "$LOG_FILE" || status=$?
case $status in
  0) [ -z "$PLAN_ONLY" ] || exit 0 ;;
  3) exit 0 ;; # all there
  *) exit $status ;;
esac

# shellcheck disable=SC2086
set_flags $CHANGEABLE
stage data
stage tokenizer
stage base_train
stage base_eval
stage mid_train
stage chat_sft
stage chat_eval
stage report
finish
