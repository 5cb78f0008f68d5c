# shellcheck shell=bash
# What the drivers share: arguments, variables, memory, lock, log, signals, stages. Sourced, does nothing by itself.
# Plain bash 3.2 and BSD tools, because that is what macOS ships. Python only maps what is found here to a plan.

unset CDPATH # a `cd` that prints its answer would spoil the next line
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
PYTHON="$ROOT/.venv/bin/python"
PROGRAM=${0##*/}
# An activated conda or another venv must not lead our Python, pip or maturin astray (two environments
# at once make maturin give up), nor may a PYTHONPATH put other modules before ours.
unset CONDA_PREFIX VIRTUAL_ENV PYTHONHOME PYTHONPATH PYTHONSAFEPATH __PYVENV_LAUNCHER__
LOG_FILE=/dev/null # until prepare opens one

say() { printf '%s\n' "$*" && printf '%s\n' "$*" >>"$LOG_FILE"; }
fail() { # CODE LINE: the contract's exit codes, 1 failed, 2 the user's mistake; the same words as Python's
  case $1 in
    1) say "failed: $2" ;;
    2) say "error: $2" ;;
    *) say "$2" ;;
  esac >&2
  exit "$1"
}

# Whatever ends a script without a word of its own is named: set -e is silent about a command substitution.
set -E # in functions as well
trap 'unexpected $? "${BASH_SOURCE[0]##*/}" "$LINENO" "$BASH_COMMAND"' ERR
unexpected() { # CODE FILE LINE COMMAND
  [ "$BASH_SUBSHELL" = 0 ] || return 0 # who started the subshell comes to know
  say "failed: ${4%%$'\n'*} (line $3 of $2) ended with code $1" >&2
}

SYSTEM=$(uname -s)
case $SYSTEM in
  MINGW* | MSYS* | CYGWIN*)
    fail 1 "nanochat runs on Linux and macOS, and on Windows in WSL2 (https://learn.microsoft.com/windows/wsl/install): type this there again"
    ;;
esac

# ---- variables: all of them checked before anything is installed ----------------------------------

refuse() { # NAME RULE EXAMPLE
  local shown=${!1-}
  shown=${shown//[[:cntrl:]]/?} # one line, whatever was typed
  fail 2 "$1=${shown:0:60}: must be $2. For example: $3 bash dev/${DRIVER:-runcpu}.sh"
}

check_whole() { # NAME LEAST MOST EXAMPLE: a whole number; an empty variable is an unset one
  local value=${!1-}
  [ -n "$value" ] || return 0
  case $value in *[!0123456789]*) value= ;; esac
  while [ "${value#0}" != "$value" ] && [ ${#value} -gt 1 ]; do value=${value#0}; done # or 010 is eight
  # The length first: bash arithmetic wraps around silently at 2^63.
  if [ -z "$value" ] || [ ${#value} -gt 15 ] || [ "$value" -lt "$2" ] || [ "$value" -gt "$3" ]; then
    refuse "$1" "a whole number from $2 to $3" "$1=$4"
  fi
  printf -v "$1" %s "$value"
}

check_name() { # NAME EXTRA-CHARACTERS EXAMPLE: it becomes the name of a folder or of a run
  local value=${!1-} letters=ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789
  case $value in # the letters are spelled out because a range like A-Z depends on the locale
    '') return 0 ;;
    [.-]* | *[!"$letters._$2-"]*) ;;
    *) [ ${#value} -gt 64 ] || return 0 ;;
  esac
  refuse "$1" "letters, digits or one of ._-$2 (64 at most, the first not . or -)" "$1=$3"
}

check_time_budget() { # 8h, 20m, 90s, 1h30m -> TIME_BUDGET_S
  local pattern='^(([0-9]{1,4})h)?(([0-9]{1,6})m)?(([0-9]{1,8})s)?$'
  TIME_BUDGET_S=
  [ -n "${TIME_BUDGET-}" ] || return 0
  if [[ $TIME_BUDGET =~ $pattern ]]; then
    TIME_BUDGET_S=$((10#0${BASH_REMATCH[2]} * 3600 + 10#0${BASH_REMATCH[4]} * 60 + 10#0${BASH_REMATCH[6]}))
    if [ $TIME_BUDGET_S -ge 60 ] && [ $TIME_BUDGET_S -le 2592000 ]; then return 0; fi
  fi
  refuse TIME_BUDGET "a time from 60s to 720h, like 90s, 20m, 8h or 1h30m" "TIME_BUDGET=20m"
}

make_absolute() { # NAME EXAMPLE: against the folder where the user stands; ~ where quotes kept the shell from it
  local value=${!1}
  case $value in
    \~ | \~/*)
      [ -n "${HOME-}" ] || refuse "$1" "a path without ~, since HOME is not set" "$2"
      value=$HOME${value#\~}
      ;;
    \~*) refuse "$1" "a path, and ${value%%/*} is not the name of a user here" "$2" ;; # else the shell had expanded it
    /*) ;;
    *) value=$PWD/$value ;;
  esac
  printf -v "$1" %s "$value"
}

check_data() {
  case ${NANOCHAT_DATA-} in '' | tinyworld | fineweb | auto) return 0 ;; esac
  make_absolute NANOCHAT_DATA NANOCHAT_DATA=tinyworld
  local folder=$NANOCHAT_DATA
  if [ ! -d "$folder" ] || ! NANOCHAT_DATA=$(cd "$folder" 2>/dev/null && pwd -P); then
    NANOCHAT_DATA=$folder
    refuse NANOCHAT_DATA "tinyworld, fineweb, auto or a folder that exists and can be read" "NANOCHAT_DATA=tinyworld"
  fi
}

check_base_dir() {
  [ -n "${NANOCHAT_BASE_DIR-}${HOME-}" ] || fail 2 "HOME is not set: say where to keep things, NANOCHAT_BASE_DIR=/some/folder"
  NANOCHAT_BASE_DIR=${NANOCHAT_BASE_DIR:-$HOME/.cache/nanochat}
  make_absolute NANOCHAT_BASE_DIR NANOCHAT_BASE_DIR=/some/folder
  export NANOCHAT_BASE_DIR # the one variable that Python reads
  local folder=$NANOCHAT_BASE_DIR probe
  while [ ! -e "$folder" ] && [ ! -L "$folder" ]; do folder=$(dirname "$folder"); done
  # Really writes: for root, -w says yes even on a read-only disk. Nothing stays behind.
  if [ ! -d "$folder" ] || ! probe=$(mktemp "$folder/.nanochat.XXXXXX" 2>/dev/null); then
    refuse NANOCHAT_BASE_DIR "a folder that can be written ($folder cannot)" "NANOCHAT_BASE_DIR=~/nanochat"
  fi
  rm -f "$probe"
  check_parts
}

check_parts() { # or a run would end hours later, at the first file that it can't write
  local name path
  # Data may well be on a disk that is read only; what is missing there is named by the stage that needs it.
  for name in base_data task_data eval_bundle; do
    path=$NANOCHAT_BASE_DIR/$name
    [ ! -e "$path" ] || { [ -r "$path" ] && [ -x "$path" ]; } || not_ours "$path" "$NANOCHAT_BASE_DIR"
  done
  for name in run.lock logs pipeline metrics tokenizer base_checkpoints mid_checkpoints sft_checkpoints report; do
    path=$NANOCHAT_BASE_DIR/$name
    case $name in
      run.lock) [ ! -d "$path" ] || fail 2 "$path is a folder, where a file is kept: move it away" ;;
      *) [ -d "$path" ] || { [ ! -e "$path" ] && [ ! -L "$path" ]; } || fail 2 "$path is not a folder, and one is needed: move it away" ;;
    esac
    check_ours "$path" "$NANOCHAT_BASE_DIR"
  done
}

check_ours() { # PATH TOP: what is there must be ours to read and to write
  if [ -r "$1" ] && [ -w "$1" ] && { [ ! -d "$1" ] || [ -x "$1" ]; }; then return 0; fi
  [ ! -e "$1" ] || not_ours "$@" # asked last: a lock may go away at any moment
}

not_ours() { # PATH TOP: most often left by a run with sudo
  if [ -O "$1" ]; then
    fail 2 "$1 can't be read and written: chmod -R u+rwX $(printf %q "$1")"
  fi
  fail 2 "$1 belongs to another user and can't be read and written: sudo chown -R $(id -u) $(printf %q "$2")"
}

check_batch() { # two explicit values that disagree; a derived one is raised instead, by Python
  if [ -z "${DEVICE_BATCH_SIZE-}" ] || [ -z "${TOTAL_BATCH_SIZE-}" ]; then return 0; fi
  local length=${MAX_SEQ_LEN:-256} unit below
  unit=$((DEVICE_BATCH_SIZE * length))
  below=$((TOTAL_BATCH_SIZE / unit * unit))
  [ "$below" != "$TOTAL_BATCH_SIZE" ] || return 0
  refuse TOTAL_BATCH_SIZE "a multiple of DEVICE_BATCH_SIZE x MAX_SEQ_LEN = $DEVICE_BATCH_SIZE x $length = $unit (nearest: $(
    [ $below = 0 ] || printf '%s or ' $below
  )$((below + unit)))" "DEVICE_BATCH_SIZE=$DEVICE_BATCH_SIZE TOTAL_BATCH_SIZE=$((below + unit))"
}

check_variables() {
  check_whole MEMORY_SIZE 1 65536 64
  check_whole DEPTH 1 64 4
  check_whole BASE_ITERATIONS 1 100000000 500
  check_whole MID_ITERATIONS 1 100000000 150
  check_whole SFT_ITERATIONS 1 100000000 150
  check_whole DATA_SHARDS 1 1822 4
  check_whole MAX_SEQ_LEN 8 65536 256
  check_whole VOCAB_SIZE 265 1048576 4096
  check_whole DEVICE_BATCH_SIZE 1 65536 8
  check_whole TOTAL_BATCH_SIZE 1 1000000000 2048
  check_whole EVAL_TOKENS 1 1000000000000 8192
  check_whole SPLIT_TOKENS 1 1000000000000 8192
  case ${FRESH:-0} in 0 | 1) ;; *) refuse FRESH "0 or 1" FRESH=1 ;; esac
  check_name MODEL_TAG '' d4
  check_name WANDB_RUN ' :/' my-run
  check_time_budget
  check_data
  check_base_dir
  [ "${DRIVER-}" = continue_training ] || check_batch # there the sequence length is the plan's
}

# ---- memory ---------------------------------------------------------------------------------------

linux_memory_gb() { # MEMINFO CGROUP_ROOT SELF_CGROUP -> GB: what is built in, or less if a cgroup says so
  local kb gb group file limit
  kb=$(awk '/^MemTotal:/ { print $2 }' "$1") || return 1
  gb=$(((kb + 4194303) / 4194304)) # the kernel keeps a part, so up to the next multiple of 4 GiB
  gb=$((gb * 4))
  group=$(sed -n -e 's/^0:://p' -e 's/^[0-9]*:[^:]*memory[^:]*://p' "$3" 2>/dev/null | head -n 1)
  # Limits hold for everything below, so our own group and all above it. v2 is memory.max, v1 the other.
  while :; do
    for file in "$2$group/memory.max" "$2/memory$group/memory.limit_in_bytes"; do
      limit=$(cat "$file" 2>/dev/null) || continue
      case $limit in '' | *[!0123456789]*) continue ;; esac # "max"
      [ ${#limit} -le 18 ] || continue                      # v1 writes "no limit" as nearly 2^63
      limit=$((limit / 1073741824))
      [ $limit -ge $gb ] || gb=$limit
    done
    case $group in '' | /) break ;; esac
    group=${group%/*}
  done
  [ $gb -ge 1 ] || gb=1
  printf '%s\n' $gb
}

detect_memory_gb() {
  local bytes
  if [ "$SYSTEM" = Darwin ]; then
    bytes=$(sysctl -n hw.memsize) && [ "$bytes" -gt 0 ] && printf '%s\n' $((bytes / 1073741824))
  else
    linux_memory_gb /proc/meminfo /sys/fs/cgroup /proc/self/cgroup
  fi
}

# ---- one run at a time ----------------------------------------------------------------------------

# A lock is a file: "pid host program since", and below a line with the pid of each stage.
LOCK=
runs() { # PID WORD: a process of this number whose command has this word in it (pids come again after a reboot)
  [ -n "$1" ] && [ "$1" != $$ ] || return 1
  command -v ps >/dev/null || { kill -0 "$1" 2>/dev/null; return; }
  case $(ps -p "$1" -o command= 2>/dev/null) in *"$2"*) return 0 ;; esac
  return 1
}

take_lock() { # FILE WHAT: or say who holds it, exit 2. A lock whose holder is dead is taken over.
  local file=$1 what=$2 mine attempt pid host program since child still
  mine="$$ $(uname -n) $PROGRAM $(date '+%Y-%m-%d %H:%M:%S')"
  for attempt in 1 2 3 4; do
    if (set -o noclobber && printf '%s\n' "$mine" >"$file") 2>/dev/null; then # creates it, or fails: never both of two
      [ "$attempt" = 1 ] || sleep 1 # after a take-over: another may have done the same in this moment
      if [ "$(head -n 1 "$file" 2>/dev/null)" = "$mine" ]; then
        LOCK=$file
        trap release_lock EXIT
        return 0
      fi
    fi
    pid='' host='' program='' since='' still=''
    read -r pid host program since 2>/dev/null <"$file" || true
    if [ -z "$pid" ] && [ "$attempt" = 1 ]; then # just made and not yet written?
      sleep 1
      continue
    fi
    check_ours "$file" "$file"
    child=$(sed -n '2,$p' "$file" 2>/dev/null | tail -n 1) || child=
    if [ "$host" != "$(uname -n)" ] && [ -n "$host" ]; then
      fail 2 "$what is in use by $program on the machine $host since $since. If that run is dead: rm $(printf %q "$file")"
    elif runs "$pid" "$program"; then
      fail 2 "$what is in use by $program (process $pid) since $since. Wait for it, or stop it: kill $pid"
    elif runs "$child" "$PYTHON"; then
      fail 2 "$what is in use: $program (since $since) is dead, its training process is not. Stop it: kill $child"
    fi
    # Another may have taken it over meanwhile: only what was read is taken away, and a live one put back.
    mv "$file" "$file.$$" 2>/dev/null || continue
    read -r still _ 2>/dev/null <"$file.$$" || true
    [ "$still" = "$pid" ] || ln "$file.$$" "$file" 2>/dev/null || true
    rm -f "$file.$$"
  done
  fail 1 "can't write the lock $file"
}

release_lock() { # only as the process that took it: a child killed before it is quite born runs our EXIT trap, too
  # shellcheck disable=SC2016 # the inner shell's parent is what runs this; $$ is the same in every child
  [ "$(exec sh -c 'echo $PPID')" = $$ ] || return 0
  case $(head -n 1 "$LOCK" 2>/dev/null) in "$$ "*) rm -f "$LOCK" ;; esac
}

# ---- a driver's life ------------------------------------------------------------------------------

begin() { # ABOUT ARGUMENTS: what the driver says of itself, and what it was called with
  ABOUT=$1 DRIVER=${PROGRAM%.sh} PLAN_ONLY=
  shift
  local argument
  for argument in "$@"; do
    case $argument in
      --plan) PLAN_ONLY=1 ;;
      -h | --help) usage && exit 0 ;;
      *) fail 2 "$PROGRAM: unknown argument $argument; there are --plan and --help, the rest is set by variables (see --help)" ;;
    esac
  done
  check_variables
  cd "$ROOT" || exit 1
}

usage() {
  cat <<TEXT
$ABOUT

  bash dev/$PROGRAM            do it
  bash dev/$PROGRAM --plan     show what it would do: batches, tokens, minutes, memory, disk

Variables, each before the command, as in: DEPTH=6 TIME_BUDGET=20m bash dev/$PROGRAM
  TIME_BUDGET         how long to train: 90s, 20m, 8h, 1h30m
  DEPTH               the size of the model in layers, 1 to 64
  NANOCHAT_DATA       tinyworld, fineweb, auto, or a folder of your own text
  DATA_SHARDS         how much text, in shards
  BASE_ITERATIONS MID_ITERATIONS SFT_ITERATIONS      steps per stage
  MEMORY_SIZE         GB to plan for, instead of what is found
  DEVICE_BATCH_SIZE   sequences at once: lower it when memory runs out
  TOTAL_BATCH_SIZE    tokens per step, a multiple of DEVICE_BATCH_SIZE x MAX_SEQ_LEN
  MAX_SEQ_LEN VOCAB_SIZE EVAL_TOKENS SPLIT_TOKENS    tokens
  MODEL_TAG           name of the model (d4 for depth 4)
  FRESH=1             start another beside an unfinished model of that name
  WANDB_RUN           name of a Weights & Biases run (off by default)
  NANOCHAT_BASE_DIR   where everything is kept (~/.cache/nanochat)
TEXT
}

default() { [ -n "${!1-}" ] || printf -v "$1" %s "$2"; } # NAME VALUE: the driver's, where the user set none

default_iterations() { # BASE MID SFT; with a TIME_BUDGET the time decides
  [ -z "$TIME_BUDGET_S" ] || return 0
  default BASE_ITERATIONS "$1"
  default MID_ITERATIONS "$2"
  default SFT_ITERATIONS "$3"
}

# What the plan of a run fixes; and what may change when it is continued.
FIXED="DEPTH BASE_ITERATIONS MID_ITERATIONS SFT_ITERATIONS DATA_SHARDS NANOCHAT_DATA TOTAL_BATCH_SIZE
  EVAL_TOKENS SPLIT_TOKENS MAX_SEQ_LEN VOCAB_SIZE WANDB_RUN"
CHANGEABLE="DEVICE_BATCH_SIZE MEMORY_SIZE TIME_BUDGET"

set_flags() { # NAMES OF VARIABLES -> FLAGS, Python's flags for those that are set
  local name flag value
  FLAGS=()
  for name in "$@"; do
    flag=$(printf %s "$name" | tr '[:upper:]' '[:lower:]') value=${!name-}
    case $name in
      NANOCHAT_DATA) flag=data ;;
      MEMORY_SIZE) flag=memory_gb ;;
      TIME_BUDGET) flag=time_budget_s value=$TIME_BUDGET_S ;;
    esac
    [ -z "$value" ] || FLAGS+=("--$flag=$value")
  done
}

pipeline() { "$PYTHON" -m nanochat.run.pipeline "$@"; }

prepare() { # the machine set up; for a real run also the lock, the log, signals, no idle sleep
  if [ -z "$PLAN_ONLY" ]; then
    mkdir -p "$NANOCHAT_BASE_DIR/logs"
    take_lock "$NANOCHAT_BASE_DIR/run.lock" "$NANOCHAT_BASE_DIR"
    LOG_FILE="$NANOCHAT_BASE_DIR/logs/$DRIVER-$(date +%Y%m%d-%H%M%S).log"
    trap 'on_signal INT' INT
    trap 'on_signal TERM' TERM
    trap 'on_signal HUP' HUP # does nothing under nohup: what is ignored at the start stays ignored
    if [ "$SYSTEM" = Darwin ] && command -v caffeinate >/dev/null; then
      caffeinate -i -w $$ &
      say "This Mac won't fall asleep by itself while this runs; a closed lid pauses the run."
    fi
  fi
  bash "$ROOT/dev/setup.sh" --from-driver || exit $?
}

make_plan() { # FLAGS THAT ARE THE DRIVER'S OWN: show the plan, keep it, set TAG
  local text given=''
  [ -z "${MEMORY_SIZE-}" ] || given=--memory_is_given # then it counts even where there is a card
  if [ -z "${MEMORY_SIZE-}" ] && ! MEMORY_SIZE=$(detect_memory_gb); then
    say "Can't tell how much memory there is: planning for 8 GB (MEMORY_SIZE=16 says otherwise)."
    MEMORY_SIZE=8
  fi
  # shellcheck disable=SC2086 # a list of names
  set_flags $FIXED $CHANGEABLE MODEL_TAG
  [ "${FRESH:-0}" = 0 ] || FLAGS+=(--fresh)
  [ -z "$PLAN_ONLY" ] || FLAGS+=(--dry_run)
  text=$(pipeline plan --driver="$DRIVER" ${given:+"$given"} "${FLAGS[@]}" "$@") || exit $?
  say "$text"
  [ -z "$PLAN_ONLY" ] || exit 0
  TAG=$(printf '%s\n' "$text" | sed -n 's/^model_tag: *//p' | head -n 1)
  FLAGS=() # the stages take everything from the plan
}

CHILD='' SIGNALS=0
on_signal() { # Ctrl-C and a closed terminal reach the stage by themselves (same process group); a `kill` does not
  SIGNALS=$((SIGNALS + 1))
  [ -n "$CHILD" ] || exit 130
  [ "$1" != TERM ] || kill "$CHILD" 2>/dev/null || true
}

# A stage runs in the background, because bash sees a signal only when the foreground is done. What is
# started so ignores Ctrl-C, and bash 3.2 cannot undo that; Python can.
HEED_CTRL_C='import os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)
os.execv(sys.executable, [sys.executable, "-m", "nanochat.run.pipeline", *sys.argv[1:]])'

stage() { # NAME: in a process of its own; anything but success ends the driver, with the same code
  local status=0 seen killed_before
  killed_before=$(oom_kills)
  # Standard output stays what it is (on a terminal the step line overwrites itself): Python writes the log.
  # One session is one run of a driver: its log's name is new each time, a pid comes again after a reboot.
  "$PYTHON" -c "$HEED_CTRL_C" stage "$1" --model_tag="$TAG" --session="${LOG_FILE##*/}" --log_file="$LOG_FILE" \
    ${FLAGS[@]+"${FLAGS[@]}"} \
    2> >(trap '' INT TERM HUP; exec tee -a "$LOG_FILE" >&2) &
  CHILD=$!
  printf '%s\n' $CHILD >>"$LOCK"
  while :; do # `wait` returns early when a signal comes: once more, then
    status=0 seen=$SIGNALS
    wait $CHILD 2>/dev/null || status=$? # bash would quote the whole command of what was killed
    [ "$SIGNALS" != "$seen" ] || break
  done
  CHILD=
  [ $status != 127 ] || [ "$SIGNALS" = 0 ] || status=130 # waited for once too often
  case $status in
    0) [ "$SIGNALS" != 0 ] || return 0 ;;
    2) # the user's mistake: Python has said what to do
      say "After that, this continues from there: $(how_to_continue)"
      exit 2
      ;;
    130 | 143) report_so_far ;;
    *)
      report_so_far
      [ $status != 137 ] || pipeline killed --name="$1" --model_tag="$TAG" --oom_kills=$(($(oom_kills) - killed_before)) \
        --log_file="$LOG_FILE"
      say "$1 failed (exit code $status); the log: $LOG_FILE"
      say "What was saved is safe. Once the cause is mended, this continues from there: $(how_to_continue)"
      exit 1
      ;;
  esac
  say "Interrupted. What was saved is safe, and this continues from there: $(how_to_continue)"
  exit 130
}

oom_kills() { # how often the kernel has killed for want of memory; Linux counts that
  local count
  count=$(sed -n 's/^oom_kill //p' /proc/vmstat 2>/dev/null) || count=
  printf '%s\n' "${count:-0}"
}

report_so_far() { # also of a run that did not finish; never the reason why it ends
  if "$PYTHON" -m nanochat.run.pipeline stage report --model_tag="$TAG" --session="${LOG_FILE##*/}" >/dev/null 2>&1; then
    say "The report so far: $NANOCHAT_BASE_DIR/report/report.md"
  fi
}

how_to_continue() {
  [ "$NANOCHAT_BASE_DIR" = "${HOME-}/.cache/nanochat" ] || printf 'NANOCHAT_BASE_DIR=%q ' "$NANOCHAT_BASE_DIR"
  printf 'MODEL_TAG=%q bash dev/continue_training.sh\n' "$TAG"
}

finish() { pipeline finish --model_tag="$TAG" | tee -a "$LOG_FILE" || exit $?; } # the honest last words
