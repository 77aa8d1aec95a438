# shellcheck shell=bash disable=SC2034,SC2153,SC2154 # the parts share their variables; deploy.sh reads them all
# What is deployed, and the way back.

show_status() {
  local name
  for name in $FUNCTIONS; do
    read_service "$name"
    if [ -z "$SERVICE" ]; then
      say functions "$name" "not deployed"
    elif [ "$PINNED" != yes ]; then
      say functions "$name" "deployed, but never found to answer well: ./deploy.sh functions $name"
    else
      say functions "$name" "serves $SERVING at $(function_url "$name")"
    fi
  done
  check_pools
  read_pool
  if [ -z "$SERVICE" ]; then say worker "$POOL" "not deployed"; else say worker "$POOL" "runs ${SERVING:-several revisions}"; fi
}

# Each service that the last release changed goes back to what it served before; so does the worker, unless names are given.
roll_back() { # [name…]
  local name newest="" all=""
  [ $# -gt 0 ] || all=yes
  # shellcheck disable=SC2086
  [ $# -gt 0 ] || set -- $FUNCTIONS
  for name in "$@"; do
    read_service "$name"
    [ "${RELEASE%%-*}" -le "${newest%%-*}" ] 2>/dev/null || newest="${RELEASE:-$newest}"
  done
  LAST_RELEASE="$newest"
  each rollback roll_back_function "$@" ||
    fail rollback "did not go back: $FAILED" "those named serve what they served" "run this again"
  [ -z "$all" ] || roll_back_worker
}

roll_back_function() { # <name>
  read_service "$1"
  if [ -z "$SERVICE" ] || [ "$RELEASE" != "$LAST_RELEASE" ]; then
    return 0
  elif [ -z "$BEFORE" ]; then
    say rollback "$1" "stays: nothing served before ${SERVING:-it}"
  elif [ "$SERVING" = "$BEFORE" ]; then
    say rollback "$1" "serves $BEFORE already"
  else
    run gcloud run services update-traffic "$1" --project "$PROJECT" --region "$REGION" --to-revisions "$BEFORE=100" --quiet || return
    did rollback "$1" "serves $BEFORE"
  fi
}

roll_back_worker() {
  check_pools
  read_pool
  if [ -z "$SERVICE" ] || [ -z "$BEFORE" ]; then
    say rollback "$POOL" "stays: nothing ran before it"
  elif [ "$SERVING" = "$BEFORE" ]; then
    say rollback "$POOL" "runs $BEFORE already"
  else
    run "${POOLS[@]}" update-instance-split "$POOL" --project "$PROJECT" --region "$REGION" --to-revisions "$BEFORE=100" --quiet ||
      fail rollback "the worker did not go back" "the new worker works" "run this again"
    did rollback "$POOL" "runs $BEFORE"
  fi
}

report() {
  [ -z "$DRY_RUN" ] || return 0
  cat >&3 <<END

functions   $SUPABASE_URL/functions/v1/<name>
collab      $(function_url collab)/api/collab/
sign in     $OWNER_EMAIL; a password made up here: gcloud secrets versions access latest --secret sidejob-owner-password --project $PROJECT
first job   docs/deploy.md, "The first job"
END
}
