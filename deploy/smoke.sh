# shellcheck shell=bash disable=SC2034,SC2153,SC2154 # the parts share their variables; deploy.sh reads them all
# What a function must do before it gets traffic: it answers preflights, asks for a credential in our words, and reads the
# database for a member.

# A member's access token in SMOKE_TOKEN: of SMOKE_EMAIL, else of the worker's user once there is one; else none.
smoke_token() {
  local email="${SMOKE_EMAIL:-}" password="${SMOKE_PASSWORD:-}"
  SMOKE_TOKEN=""
  if [ -z "$email" ] && [ -n "${WORKER_EMAIL:-}" ] && has_secret sidejob-worker-password; then
    email="$WORKER_EMAIL"
    [ -n "$DRY_RUN" ] || password="$(secret_value sidejob-worker-password)" || return 0
  fi
  if [ -z "$email" ]; then
    say functions "smoke test" "no member's token: set SMOKE_EMAIL and SMOKE_PASSWORD, or provision first"
  elif [ -n "$DRY_RUN" ]; then
    SMOKE_TOKEN=unknown
  else
    SMOKE_TOKEN="$(SUPABASE_URL="$SUPABASE_URL" SUPABASE_PUBLISHABLE_KEY="$SUPABASE_PUBLISHABLE_KEY" \
      SMOKE_EMAIL="$email" SMOKE_PASSWORD="$password" "$PYTHON" -m deploy.provision token 2>>"$LOG")" ||
      fail functions "$email cannot sign in for the smoke test" "nothing was deployed" "./deploy.sh provision, or SMOKE_EMAIL and SMOKE_PASSWORD"
  fi
}

smoke_function() { # <name>
  local url TOLD=""
  read_plan "$1"
  url="$(function_url "$1" "$TAG")$ROUTE"
  expect "$1" 204 --request OPTIONS "$url" || return
  expect "$1" 401 --request "$METHOD" "$url" || return
  [ -n "$DRY_RUN" ] || grep -q '"code": *"missing_token"' "$LOGS/answer-$1" || {
    echo "its 401 is not in our words: $(head -c 300 "$LOGS/answer-$1")" >>"$LOG"
    return 1
  }
  if [ "$1" = metrics-overview ] && [ -n "$SMOKE_TOKEN" ]; then
    TOLD="header = \"Authorization: Bearer $SMOKE_TOKEN\""
    expect "$1" 200 --config - "$url" || return
    TOLD=""
  fi
  if [ "$1" = leases-release ] && [ -n "${SUPABASE_SECRET_KEY:-}" ]; then
    TOLD="header = \"apikey: $SUPABASE_SECRET_KEY\""
    expect "$1" 200 --request POST --config - "$url" || return
    TOLD=""
  fi
  did functions "$1" "answers well"
}

# expect <name> <status> <argument of curl…>: TOLD is curl's configuration where it reads one (--config -).
# An address that was made a moment ago may need a little.
expect() {
  local name="$1" wanted="$2" said="" try
  shift 2
  set -- curl --silent --show-error --max-time 30 --retry 3 --retry-connrefused --output "$LOGS/answer-$name" \
    --write-out '%{http_code}' "$@"
  if [ -n "$DRY_RUN" ]; then
    quoted "$@" >&3
    return 0
  fi
  for try in 1 2 3 4 5; do
    if [ -n "$TOLD" ]; then said="$(printf '%s\n' "$TOLD" | "$@" 2>>"$LOG")"; else said="$("$@" </dev/null 2>>"$LOG")"; fi ||
      said="no answer"
    [ "$said" != "$wanted" ] || return 0
    [ "$try" = 5 ] || sleep 3
  done
  printf '%s\n' "wanted $wanted, got $said: ${*: -1}" "$(head -c 300 "$LOGS/answer-$name" 2>/dev/null)" >>"$LOG"
  return 1
}
