# shellcheck shell=bash disable=SC2034,SC2153,SC2154 # the parts share their variables; deploy.sh reads them all
# How a step runs, what it says, and how it fails.

BUILD="${SIDEJOB_BUILD:-$here/build}"
LOGS="$BUILD/logs"
AT_ONCE=4 # functions deployed or asked at the same time

# Where one process writes what its commands say; of a parallel one, a file of its own.
LOG=/dev/null

begin() {
  mkdir -p "$LOGS"
  LOG="$LOGS/deploy.log"
  : >"$LOG"
  exec 3>&1 # what the operator reads, whatever a step does with its output
  SCRATCH="$(mktemp -d "${TMPDIR:-/tmp}/sidejob-deploy.XXXXXX")"
  trap 'rm -rf "$SCRATCH"' EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM
}

# A wrong call of this script.
refuse() {
  printf 'deploy.sh: %s See ./deploy.sh --help.\n' "$1" >&2
  exit 2
}

# One line about what is: part, subject, what is so. Among the commands of a dry run it is a comment.
say() {
  printf '%s%-11s %-18s %s\n' "${DRY_RUN:+# }" "$1" "$2" "$3" >&3
}

# One line about what was done just now; a dry run does nothing.
did() {
  [ -n "$DRY_RUN" ] || say "$@"
}

# The words of a command as they can be typed.
quoted() {
  local line
  printf -v line '%q ' "$@"
  printf '%s\n' "${line% }"
}

# The only door to a command that changes something. A dry run prints the command instead.
# A secret never is an argument: it comes by standard input or in the environment, so there is nothing to hide here.
run() {
  if [ -n "$DRY_RUN" ]; then
    quoted "$@" >&3
    return 0
  fi
  printf '$ %s\n' "$(quoted "$@")" >>"$LOG"
  "$@" >>"$LOG" 2>&1
}

# run_telling <secret> <command…>: the command gets the secret on its standard input.
run_telling() {
  local secret="$1"
  shift
  if [ -n "$DRY_RUN" ]; then run "$@"; else printf '%s' "$secret" | run "$@"; fi
}

# fail <part> <what happened> <what is still so> <what to do>
fail() {
  {
    printf '\n%s: %s\n' "$1" "$2"
    [ ! -s "$LOG" ] || tail -n 12 "$LOG" | sed 's/^/    /'
    printf 'Still so: %s\nNext: %s (all output: %s)\n' "$3" "$4" "$LOGS"
  } >&2
  exit 1
}

# each <part> <function> <name…>: the function for each name, some at a time. A failure ends it after the names that
# run beside it; FAILED then holds the names, and LOG the output of the first.
each() {
  local part="$1" work="$2" name pids group index
  shift 2
  local at_once="$AT_ONCE"
  [ -z "$DRY_RUN" ] || at_once=1 # printed in order
  FAILED=""
  while [ $# -gt 0 ] && [ -z "$FAILED" ]; do
    pids=() group=()
    while [ $# -gt 0 ] && [ "${#group[@]}" -lt "$at_once" ]; do
      group+=("$1")
      shift
    done
    index=0
    while [ "$index" -lt "${#group[@]}" ]; do
      name="${group[$index]}"
      (
        LOG="$LOGS/$part-$name.log"
        : >"$LOG"
        "$work" "$name"
      ) &
      pids+=("$!")
      index=$((index + 1))
    done
    index=0
    while [ "$index" -lt "${#group[@]}" ]; do
      wait "${pids[$index]}" || FAILED="$FAILED ${group[$index]}"
      index=$((index + 1))
    done
  done
  [ -z "$FAILED" ] || {
    FAILED="${FAILED# }"
    LOG="$LOGS/$part-${FAILED%% *}.log"
    return 1
  }
}

# The text of standard input, one line a line, as 40 hexadecimal digits of its SHA-256: a label holds 63 characters.
digests() {
  "$PYTHON" -c 'import hashlib, sys
for line in sys.stdin.read().splitlines():
    print(hashlib.sha256(line.encode()).hexdigest()[:40])'
}
