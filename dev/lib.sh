# shellcheck shell=bash
# What the drivers share: arguments, variables, memory, lock, log, signals, stages. Sourcing it starts nothing.
# Plain bash 3.2 and BSD tools, because that is what macOS ships. Python turns what is found here into a plan.

unset CDPATH # with it set, `cd` may print a path into the next line's $(...)
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
PYTHON="$ROOT/.venv/bin/python"
PROGRAM=${0##*/}
TABLE="$ROOT/nanochat/variables.txt" # what a user may set; Python reads the same table
# An active conda or other venv must not mislead our Python, pip or maturin (maturin gives up when it sees
# two environments), and a PYTHONPATH must not put other modules before ours.
unset CONDA_PREFIX VIRTUAL_ENV PYTHONHOME PYTHONPATH PYTHONSAFEPATH __PYVENV_LAUNCHER__
LOG_FILE=/dev/null # until prepare opens one

say() { printf '%s\n' "$*" && printf '%s\n' "$*" >>"$LOG_FILE"; }
fail() { # CODE WORDS: 1 failed, 2 the user's mistake, 130 interrupted; worded as in Python
  local code=$1
  shift
  case $code in
    1) say "failed: $*" ;;
    2) say "error: $*" ;;
    *) say "$*" ;;
  esac >&2
  exit "$code"
}

# set -e ends a script without a word when a command substitution fails, so name the command that did it.
set -E # in functions as well
trap 'unexpected $? "${BASH_SOURCE[0]##*/}" "$LINENO" "$BASH_COMMAND"' ERR
unexpected() { # CODE FILE LINE COMMAND
  [ "$BASH_SUBSHELL" = 0 ] || return 0 # the shell that started this one reports it
  say "failed: ${4%%$'\n'*} (line $3 of $2) ended with code $1" >&2
}

SYSTEM=$(uname -s)
case $SYSTEM in
  MINGW* | MSYS* | CYGWIN*)
    fail 1 "nanochat runs on Linux, on macOS, and on Windows inside WSL2: run this again there" \
      "(https://learn.microsoft.com/windows/wsl/install)"
    ;;
esac

# ---- variables: all checked before anything is installed ------------------------------------------

for_each_variable() { # FUNCTION: called as FUNCTION NAME KIND LEAST MOST EXAMPLE CONTINUED FLAGS COMMANDS HELP
  local name kind least most example continued flags commands help
  # On descriptor 3, so that a function may use standard input. The second test is for an editor that
  # leaves out the last newline.
  while read -r name kind least most example continued flags commands help <&3 || [ -n "$name" ]; do
    case $name in '' | \#*) continue ;; esac
    "$1" "$name" "$kind" "$least" "$most" "$example" "$continued" "$flags" "$commands" "$help"
  done 3<"$TABLE"
}

check_variables() {
  for_each_variable check_variable
  [ "${DRIVER-}" = continue_training ] || check_batch # when continuing, MAX_SEQ_LEN comes from the plan
}

check_variable() { # a row
  local example="$1=$5"
  case $2 in
    whole) check_whole "$1" "$3" "$4" "$example" ;;
    time) check_time "$1" "$3" "$4" "$example" ;;
    name) check_name "$1" '' "$example" ;;
    label) check_name "$1" ' :/' "$example" ;;
    switch) check_switch "$1" "$example" ;;
    data) check_data "$1" "$example" ;;
    world) check_world "$1" "$example" ;;
    folder) check_base_dir "$1" "$example" ;;
    *) fail 1 "$TABLE: $1 has the kind $2, which nothing here checks" ;;
  esac
}

unset_variables() { for_each_variable unset_variable; }
unset_variable() { unset "$1"; } # a row

names_of() { # fixed or changeable: prints the names of those variables
  local which=$1 names=''
  for_each_variable add_name
  printf '%s\n' "${names# }"
}

add_name() { [ "$6" != "$which" ] || names="$names $1"; } # a row

refuse() { # NAME RULE EXAMPLE
  local shown=${!1-}
  shown=${shown//[[:cntrl:]]/?} # keeps the message on one line
  fail 2 "$1=${shown:0:60}: must be $2. For example: $3 bash dev/${DRIVER:-runcpu}.sh"
}

check_whole() { # NAME LEAST MOST EXAMPLE: a whole number; an empty variable counts as unset
  local value=${!1-}
  [ -n "$value" ] || return 0
  case $value in *[!0123456789]*) value= ;; esac
  while [ "${value#0}" != "$value" ] && [ ${#value} -gt 1 ]; do value=${value#0}; done # bash reads 010 as 8
  # The length first: bash arithmetic wraps around silently at 2^63.
  if [ -z "$value" ] || [ ${#value} -gt 15 ] || [ "$value" -lt "$2" ] || [ "$value" -gt "$3" ]; then
    refuse "$1" "a whole number from $2 to $3" "$4"
  fi
  printf -v "$1" %s "$value"
}

check_name() { # NAME EXTRA-CHARACTERS EXAMPLE: for a folder or a run
  local value=${!1-} letters=ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789
  case $value in # the letters are spelled out because a range such as A-Z depends on the locale
    '') return 0 ;;
    [.-]* | *[!"$letters._$2-"]*) ;;
    *) [ ${#value} -gt 64 ] || return 0 ;;
  esac
  refuse "$1" "1 to 64 letters, digits or any of ._-$2 (the first not . or -)" "$3"
}

check_time() { # NAME LEAST MOST EXAMPLE: 8h, 20m, 90s, 1h30m -> NAME_S, in seconds; empty where none is set
  local pattern='^(([0-9]{1,4})h)?(([0-9]{1,6})m)?(([0-9]{1,8})s)?$' seconds=
  printf -v "$1_S" %s ''
  [ -n "${!1-}" ] || return 0
  if [[ ${!1} =~ $pattern ]]; then
    seconds=$((10#0${BASH_REMATCH[2]} * 3600 + 10#0${BASH_REMATCH[4]} * 60 + 10#0${BASH_REMATCH[6]}))
  fi
  if [ -z "$seconds" ] || [ "$seconds" -lt "$2" ] || [ "$seconds" -gt "$3" ]; then
    refuse "$1" "a time from ${2}s to $(($3 / 3600))h, like 90s, 20m, 8h or 1h30m" "$4"
  fi
  printf -v "$1_S" %s "$seconds"
}

check_switch() { # NAME EXAMPLE
  case ${!1:-0} in 0 | 1) ;; *) refuse "$1" "0 or 1" "$2" ;; esac
}

make_absolute() { # NAME EXAMPLE: from the user's current folder; quotes may have kept the shell from expanding ~
  local value=${!1}
  case $value in
    \~ | \~/*)
      [ -n "${HOME-}" ] || refuse "$1" "a path without ~, because HOME is not set" "$2"
      value=$HOME${value#\~}
      ;;
    # The shell would have expanded it if there were such a user.
    \~*) refuse "$1" "a path, and ${value%%/*} is not the home of a user here" "$2" ;;
    /*) ;;
    *) value=$PWD/$value ;;
  esac
  printf -v "$1" %s "$value"
}

check_data() { # NAME EXAMPLE
  local folder
  case ${!1-} in '' | tinyworld | fineweb | auto) return 0 ;; esac
  make_absolute "$1" "$2"
  if [ ! -d "${!1}" ] || ! folder=$(cd "${!1}" 2>/dev/null && pwd -P); then
    refuse "$1" "tinyworld, fineweb, auto or a folder that exists and can be read" "$2"
  fi
  printf -v "$1" %s "$folder"
}

check_world() { # NAME EXAMPLE: a source of text like others, so it becomes NANOCHAT_DATA
  [ -n "${!1-}" ] || return 0
  [ -z "${NANOCHAT_DATA-}" ] ||
    refuse "$1" "given without NANOCHAT_DATA, because a run has one source of text" "$2"
  make_absolute "$1" "$2"
  [ -d "${!1}" ] || refuse "$1" "a folder that exists (python -m scripts.world --new FOLDER makes one)" "$2"
  [ -f "${!1}/world.txt" ] || refuse "$1" "a folder with a world.txt in it (see docs/world.md)" "$2"
  NANOCHAT_DATA=${!1}
  check_data NANOCHAT_DATA "$2"
}

check_base_dir() { # NAME EXAMPLE
  local folder probe
  [ -n "${!1-}${HOME-}" ] || fail 2 "HOME is not set: say where to keep everything, $1=/some/folder"
  [ -n "${!1-}" ] || printf -v "$1" %s "$HOME/.cache/nanochat"
  make_absolute "$1" "$1=/some/folder"
  # shellcheck disable=SC2163 # exports the variable that is named
  export "$1" # the one variable that Python reads
  folder=${!1}
  while [ ! -e "$folder" ] && [ ! -L "$folder" ]; do folder=$(dirname "$folder"); done
  # Really writes: for root, -w says yes even on a read-only disk. Nothing stays behind.
  if [ ! -d "$folder" ] || ! probe=$(mktemp "$folder/.nanochat.XXXXXX" 2>/dev/null); then
    refuse "$1" "a folder that can be written ($folder cannot)" "$2"
  fi
  rm -f "$probe"
  check_parts "${!1}"
}

check_parts() { # BASE_DIR: or a run would end hours later, at the first file that it can't write
  local name path
  # Data may well be on a read-only disk. A stage that misses some says so.
  for name in base_data task_data eval_bundle; do
    path=$1/$name
    [ ! -e "$path" ] || { [ -r "$path" ] && [ -x "$path" ]; } || not_ours "$path" "$1"
  done
  path=$1/run.lock
  [ ! -d "$path" ] || fail 2 "$path is a folder, but a file belongs there: move it away"
  check_ours "$path" "$1"
  for path in "$1"/{logs,pipeline,metrics,tokenizer,report} "$1"/*_checkpoints; do
    if [ ! -d "$path" ] && { [ -e "$path" ] || [ -L "$path" ]; }; then
      fail 2 "$path is not a folder, but a folder belongs there: move it away"
    fi
    check_ours "$path" "$1"
  done
}

check_ours() { # PATH TOP: if it exists, we must be able to read and write it
  if [ -r "$1" ] && [ -w "$1" ] && { [ ! -d "$1" ] || [ -x "$1" ]; }; then return 0; fi
  [ ! -e "$1" ] || not_ours "$@" # asked last, because a lock may go away at any moment
}

not_ours() { # PATH TOP: usually left behind by a run with sudo
  if [ -O "$1" ]; then
    fail 2 "$1 can't be read and written: chmod -R u+rwX $(printf %q "$1")"
  fi
  fail 2 "$1 belongs to another user and can't be read and written: sudo chown -R $(id -u) $(printf %q "$2")"
}

check_batch() { # two explicit values that disagree; Python rounds up a derived one instead
  if [ -z "${DEVICE_BATCH_SIZE-}" ] || [ -z "${TOTAL_BATCH_SIZE-}" ]; then return 0; fi
  local length=${MAX_SEQ_LEN:-256} unit below nearest rule
  unit=$((DEVICE_BATCH_SIZE * length))
  below=$((TOTAL_BATCH_SIZE / unit * unit))
  [ "$below" != "$TOTAL_BATCH_SIZE" ] || return 0
  nearest=$((below + unit))
  [ $below = 0 ] || nearest="$below or $nearest"
  rule="a multiple of DEVICE_BATCH_SIZE x MAX_SEQ_LEN = $DEVICE_BATCH_SIZE x $length = $unit (nearest: $nearest)"
  refuse TOTAL_BATCH_SIZE "$rule" "DEVICE_BATCH_SIZE=$DEVICE_BATCH_SIZE TOTAL_BATCH_SIZE=$((below + unit))"
}

# ---- memory ---------------------------------------------------------------------------------------

linux_memory_gb() { # MEMINFO CGROUP_ROOT SELF_CGROUP: prints the GB built in, or a cgroup's limit if it is lower
  local kb gb group file limit
  kb=$(awk '/^MemTotal:/ { print $2 }' "$1") || return 1
  gb=$(((kb + 4194303) / 4194304)) # the kernel keeps a part for itself: round up to a multiple of 4 GiB
  gb=$((gb * 4))
  group=$(sed -n -e 's/^0:://p' -e 's/^[0-9]*:[^:]*memory[^:]*://p' "$3" 2>/dev/null | head -n 1)
  # A limit holds for everything below it, so look at our own group and all above it. memory.max is
  # cgroup v2, the other v1.
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

# A lock is a file: a line "pid host program since", then a line with the pid of each stage so far.
LOCK=
runs() { # PID WORD: whether it runs, with this word in its command (pids are reused after a reboot)
  [ -n "$1" ] && [ "$1" != $$ ] || return 1
  command -v ps >/dev/null || { kill -0 "$1" 2>/dev/null; return; }
  case $(ps -p "$1" -o command= 2>/dev/null) in *"$2"*) return 0 ;; esac
  return 1
}

take_lock() { # FILE WHAT: or exit 2 and say who holds it. A lock whose holder is dead is taken over.
  local file=$1 what=$2 mine attempt pid host program since child still
  mine="$$ $(uname -n) $PROGRAM $(date '+%Y-%m-%d %H:%M:%S')"
  for attempt in 1 2 3 4; do
    # Of two that try to create it, one fails.
    if (set -o noclobber && printf '%s\n' "$mine" >"$file") 2>/dev/null; then
      [ "$attempt" = 1 ] || sleep 1 # another may have taken it over at the same moment
      if [ "$(head -n 1 "$file" 2>/dev/null)" = "$mine" ]; then
        LOCK=$file
        trap release_lock EXIT
        return 0
      fi
    fi
    pid='' host='' program='' since='' still=''
    read -r pid host program since 2>/dev/null <"$file" || true
    if [ -z "$pid" ] && [ "$attempt" = 1 ]; then # created, but perhaps not yet written
      sleep 1
      continue
    fi
    check_ours "$file" "$file"
    child=$(sed -n '2,$p' "$file" 2>/dev/null | tail -n 1) || child=
    if [ "$host" != "$(uname -n)" ] && [ -n "$host" ]; then
      fail 2 "$what is in use by $program on the machine $host since $since." \
        "If that run is dead: rm $(printf %q "$file")"
    elif runs "$pid" "$program"; then
      fail 2 "$what is in use by $program (process $pid) since $since. Wait for it, or stop it: kill $pid"
    elif runs "$child" "$PYTHON"; then
      fail 2 "$what is in use: $program (since $since) is dead, but its training process still runs." \
        "Stop it: kill $child"
    fi
    # Another process may have taken it over since we read it: if this is not what we read, put it back.
    mv "$file" "$file.$$" 2>/dev/null || continue
    read -r still _ 2>/dev/null <"$file.$$" || true
    [ "$still" = "$pid" ] || ln "$file.$$" "$file" 2>/dev/null || true
    rm -f "$file.$$"
  done
  fail 1 "can't write the lock $file"
}

release_lock() { # only in the process that took it: a child killed before it execs runs our EXIT trap as well
  # shellcheck disable=SC2016 # its parent is the process that runs this; $$ is the same in every child
  [ "$(exec sh -c 'echo $PPID')" = $$ ] || return 0
  case $(head -n 1 "$LOCK" 2>/dev/null) in "$$ "*) rm -f "$LOCK" ;; esac
}

# ---- a driver's life ------------------------------------------------------------------------------

begin() { # ABOUT ARGUMENTS: the driver's description for --help, and what it was called with
  ABOUT=$1 DRIVER=${PROGRAM%.sh} PLAN_ONLY=
  shift
  local argument
  for argument in "$@"; do
    case $argument in
      --plan) PLAN_ONLY=1 ;;
      -h | --help) usage && exit 0 ;;
      *)
        fail 2 "$PROGRAM: unknown argument $argument; it takes --plan and --help," \
          "and variables set everything else (see --help)"
        ;;
    esac
  done
  check_variables
  cd "$ROOT" || exit 1
}

usage() {
  local names='' text=''
  cat <<TEXT
$ABOUT

  bash dev/$PROGRAM            do it
  bash dev/$PROGRAM --plan     show what it would do: batches, tokens, minutes, memory, disk

Variables, each before the command, as in: DEPTH=6 TIME_BUDGET=20m bash dev/$PROGRAM
TEXT
  for_each_variable usage_row
  usage_line
}

usage_row() { # a row; those with the same text share a line
  local name=$1
  [ "$2" != switch ] || name=$1=$5
  if [ "$9" = "$text" ]; then
    names="$names $name"
  else
    usage_line
    names=$name text=$9
  fi
}

usage_line() { [ -z "$names" ] || printf '  %-18s  %s\n' "$names" "$text"; }

default() { [ -n "${!1-}" ] || printf -v "$1" %s "$2"; } # NAME VALUE: unless the user has set it

default_iterations() { # BASE MID SFT: unless a TIME_BUDGET decides
  [ -z "$TIME_BUDGET_S" ] || return 0
  default BASE_ITERATIONS "$1"
  default MID_ITERATIONS "$2"
  default SFT_ITERATIONS "$3"
}

set_flags() { # all, or fixed or changeable when a run is continued -> FLAGS, as Python takes them
  local which=$1
  FLAGS=()
  for_each_variable add_flag
}

add_flag() { # a row
  local value=${!1-} seconds=$1_S flag=--${7%%,*}
  case $which in all | "$6") ;; *) return 0 ;; esac
  if [ -z "$value" ] || [ "$7" = - ]; then return 0; fi
  case $2:$value in
    switch:0) ;;
    switch:1) FLAGS+=("$flag") ;;
    time:*) FLAGS+=("$flag=${!seconds}") ;;
    *) FLAGS+=("$flag=$value") ;;
  esac
}

pipeline() { "$PYTHON" -m nanochat.run.pipeline "$@"; }

prepare() { # sets the machine up; a real run also gets its lock, its log, its signals and no idle sleep
  if [ -z "$PLAN_ONLY" ]; then
    mkdir -p "$NANOCHAT_BASE_DIR/logs"
    take_lock "$NANOCHAT_BASE_DIR/run.lock" "$NANOCHAT_BASE_DIR"
    LOG_FILE="$NANOCHAT_BASE_DIR/logs/$DRIVER-$(date +%Y%m%d-%H%M%S).log"
    trap 'on_signal INT' INT
    trap 'on_signal TERM' TERM
    trap 'on_signal HUP' HUP # does nothing under nohup: a signal ignored at the start stays ignored
    if [ "$SYSTEM" = Darwin ] && command -v caffeinate >/dev/null; then
      caffeinate -i -w $$ &
      say "This Mac won't go to sleep by itself while this runs, but a closed lid pauses the run."
    fi
  fi
  bash "$ROOT/dev/setup.sh" --from-driver || exit $?
}

make_plan() { # FLAGS THAT ONLY THE DRIVER SETS: show the plan, keep it -> TAG
  local text given=''
  [ -z "${MEMORY_SIZE-}" ] || given=--memory_is_given # then it wins over the memory of a GPU
  if [ -z "${MEMORY_SIZE-}" ] && ! MEMORY_SIZE=$(detect_memory_gb); then
    say "Can't tell how much memory this machine has: planning for 8 GB (set MEMORY_SIZE=16 if it has 16)."
    MEMORY_SIZE=8
  fi
  set_flags all
  [ -z "$PLAN_ONLY" ] || FLAGS+=(--dry_run)
  text=$(pipeline plan --driver="$DRIVER" ${given:+"$given"} "${FLAGS[@]}" "$@") || exit $?
  say "$text"
  [ -z "$PLAN_ONLY" ] || exit 0
  TAG=$(printf '%s\n' "$text" | sed -n 's/^model_tag: *//p' | head -n 1)
  FLAGS=() # the stages take everything from the plan
}

CHILD='' SIGNALS=0
on_signal() { # Ctrl-C and a closed terminal reach the whole process group, so the stage as well; a `kill` does not
  SIGNALS=$((SIGNALS + 1))
  [ -n "$CHILD" ] || exit 130
  [ "$1" != TERM ] || kill "$CHILD" 2>/dev/null || true
}

# A stage runs in the background, because bash handles a signal only when a foreground command has ended.
# Bash makes background commands ignore Ctrl-C, and bash 3.2 can't undo that; Python can.
HEED_CTRL_C='import os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)
os.execv(sys.executable, [sys.executable, "-m", "nanochat.run.pipeline", *sys.argv[1:]])'

run_stages() { # all of them, in the order of nanochat/stages.py
  local names name
  # Not a verb of the pipeline, which takes half a second to load.
  names=$("$PYTHON" -c 'from nanochat.stages import STAGES; print(*(stage.name for stage in STAGES))')
  for name in $names; do stage "$name"; done
}

stage() { # NAME: in a process of its own; anything but success ends the driver
  local status=0 seen killed_before
  killed_before=$(oom_kills)
  # Standard output is not piped through tee, or the step line could not overwrite itself on a terminal:
  # Python writes the log. A session is one run of a driver. The name of its log identifies it, because pids
  # are reused after a reboot.
  "$PYTHON" -c "$HEED_CTRL_C" stage "$1" --model_tag="$TAG" --session="${LOG_FILE##*/}" --log_file="$LOG_FILE" \
    ${FLAGS[@]+"${FLAGS[@]}"} \
    2> >(trap '' INT TERM HUP; exec tee -a "$LOG_FILE" >&2) &
  CHILD=$!
  printf '%s\n' $CHILD >>"$LOCK"
  while :; do # a signal ends `wait` early; then wait again
    status=0 seen=$SIGNALS
    wait $CHILD 2>/dev/null || status=$? # of a killed child, bash would print the whole command
    [ "$SIGNALS" != "$seen" ] || break
  done
  CHILD=
  [ $status != 127 ] || [ "$SIGNALS" = 0 ] || status=130 # it had ended before we waited again
  case $status in
    0) [ "$SIGNALS" != 0 ] || return 0 ;;
    2) # the user's mistake: Python has said what to do
      say "Then continue from there: $(how_to_continue)"
      exit 2
      ;;
    130 | 143) report_so_far ;;
    *)
      report_so_far
      [ $status != 137 ] || pipeline killed --name="$1" --model_tag="$TAG" --log_file="$LOG_FILE" \
        --oom_kills=$(($(oom_kills) - killed_before))
      say "$1 failed (exit code $status). The log: $LOG_FILE"
      say "Everything saved is safe. Once the cause is fixed, continue from there: $(how_to_continue)"
      exit 1
      ;;
  esac
  say "Interrupted. Everything saved is safe. Continue from there: $(how_to_continue)"
  exit 130
}

oom_kills() { # how often the kernel has killed a process because memory ran out; only Linux counts that
  local count
  count=$(sed -n 's/^oom_kill //p' /proc/vmstat 2>/dev/null) || count=
  printf '%s\n' "${count:-0}"
}

report_so_far() { # of a run that did not finish; if this fails, the run still ends with its own code
  if pipeline stage report --model_tag="$TAG" --session="${LOG_FILE##*/}" >/dev/null 2>&1; then
    say "The report so far: $NANOCHAT_BASE_DIR/report/report.md"
  fi
}

how_to_continue() {
  [ "$NANOCHAT_BASE_DIR" = "${HOME-}/.cache/nanochat" ] || printf 'NANOCHAT_BASE_DIR=%q ' "$NANOCHAT_BASE_DIR"
  printf 'MODEL_TAG=%q bash dev/continue_training.sh\n' "$TAG"
}

finish() { pipeline finish --model_tag="$TAG" | tee -a "$LOG_FILE" || exit $?; } # the last words of a run
