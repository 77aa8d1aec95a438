# shellcheck shell=bash disable=SC2034,SC2153,SC2154 # the parts share their variables; deploy.sh reads them all
# The functions: each is deployed without traffic, under a tag, and gets the traffic when all of them answer well.

# Reads PLAN's line of a function: FUNCTION TARGET HOLDS_KEY METHOD ROUTE HASH TAG ACTION.
# ACTION: first (no such service yet), deploy, resume (deployed by an earlier run, but not serving), unchanged.
read_plan() { # <name>
  while IFS='|' read -r FUNCTION TARGET HOLDS_KEY METHOD ROUTE HASH TAG ACTION; do
    [ "$FUNCTION" != "$1" ] || return 0
  done <"$PLAN"
}

deploy_functions() { # [name…]
  local name first="" changing=() unchanged=0
  # shellcheck disable=SC2086
  [ $# -gt 0 ] || set -- $FUNCTIONS
  prepare_functions
  plan_functions "$@"
  for name in "$@"; do
    read_plan "$name"
    if [ "$ACTION" = unchanged ]; then unchanged=$((unchanged + 1)); else changing+=("$name"); fi
  done
  [ "$unchanged" = 0 ] || say functions "$unchanged of $#" unchanged
  [ "$unchanged" != $# ] || return 0
  smoke_token
  # The first build in a project makes the bucket and the repository that all others use: it goes alone.
  [ -s "$SERVICES" ] || first="${changing[0]}"
  set -- "${changing[@]}"
  [ -z "$first" ] || shift
  # shellcheck disable=SC2086
  { each deploy deploy_function $first && each deploy deploy_function "$@"; } ||
    fail functions "not deployed: $FAILED" "no traffic was moved: the old revisions serve" "see the log, then run this again"
  each smoke smoke_function "${changing[@]}" ||
    fail functions "does not answer well: $FAILED" "no traffic was moved: the old revisions serve" \
      "gcloud run services logs read ${FAILED%% *} --region $REGION --project $PROJECT; mend it, then run this again"
  each serve serve_function "${changing[@]}" ||
    fail functions "traffic was not moved: $FAILED" "those named serve their old revision, the others the new one" \
      "run this again, or ./deploy.sh rollback"
}

# Who the functions run as, and the versions of what they may read.
prepare_functions() {
  account sidejob-functions "Sidejob: functions"
  PLAIN_ACCOUNT="$ACCOUNT"
  account sidejob-keyholder "Sidejob: functions with the secret key"
  KEY_ACCOUNT="$ACCOUNT"
  store_secret sidejob-secret-key "${SUPABASE_SECRET_KEY:-}" "$KEY_ACCOUNT"
  KEY_VERSION="$VERSION" JWT_VERSION=""
  if [ -n "${SUPABASE_JWT_SECRET:-}" ] || has_secret sidejob-jwt-secret; then
    store_secret sidejob-jwt-secret "${SUPABASE_JWT_SECRET:-}" "$KEY_ACCOUNT"
    may_read sidejob-jwt-secret "$PLAIN_ACCOUNT"
    JWT_VERSION="$VERSION"
  fi
}

# Sets FLAGS: all that makes a function what it is, beside its sources. What is not named here is taken away.
# ^|^ is gcloud's way to say what stands between variables; their values have commas and at signs (gcloud topic escaping).
function_flags() { # <name> <holds the key: yes or no>
  local account="$PLAIN_ACCOUNT" concurrency=16 timeout=60 secrets="" variables
  variables="SUPABASE_URL=$SUPABASE_URL|SUPABASE_PUBLISHABLE_KEY=$SUPABASE_PUBLISHABLE_KEY|GOOGLE_CLOUD_PROJECT=$PROJECT|THREADS=16"
  # The forwarder and Cloud Run, each of which notes an address.
  variables="$variables|TRUSTED_PROXIES=2"
  [ -z "${SUPABASE_JWT_ISSUER:-}" ] || variables="$variables|SUPABASE_JWT_ISSUER=$SUPABASE_JWT_ISSUER"
  [ -z "$JWT_VERSION" ] || secrets="SUPABASE_JWT_SECRET=sidejob-jwt-secret:$JWT_VERSION"
  if [ "$2" = yes ]; then
    account="$KEY_ACCOUNT"
    secrets="SUPABASE_SECRET_KEY=sidejob-secret-key:$KEY_VERSION${secrets:+,$secrets}"
  fi
  [ "$1" != job-events ] || concurrency=250 timeout=300 # streams: many, idle, and up to 240 s long
  FLAGS=(--project "$PROJECT" --region "$REGION" --base-image "$FUNCTION_BASE_IMAGE" --service-account "$account"
    --set-env-vars "^|^$variables")
  if [ -n "$secrets" ]; then FLAGS+=(--set-secrets "$secrets"); else FLAGS+=(--clear-secrets); fi
  FLAGS+=(--concurrency "$concurrency" --timeout "$timeout" --min 0 --max-instances "$FUNCTION_MAX_INSTANCES"
    --memory 512Mi --cpu 1 --cpu-boost --allow-unauthenticated)
}

# Stages the functions and writes PLAN: one line for each, see read_plan.
plan_functions() { # <name…>
  local staged="$SCRATCH/staged" name target print key method route hash release=""
  PLAN="$SCRATCH/plan"
  "$PYTHON" -m deploy.stage "$BUILD/functions" "$@" >"$staged" 2>>"$LOG" ||
    fail functions "they cannot be staged" "nothing was deployed" "see the log"
  while IFS='|' read -r name target print key method route; do
    function_flags "$name" "$key"
    printf '%s %s\n' "$print" "${FLAGS[*]}"
  done <"$staged" | digests >"$SCRATCH/hashes"
  paste -d'|' "$staged" "$SCRATCH/hashes" >"$SCRATCH/hashed"
  # A release is one wanted state: a run that goes on where another failed is part of the same one.
  release="$(tr '\n' ' ' <"$SCRATCH/hashes" | digests | cut -c1-8)"
  RELEASE_NOW="$(sed -n "s/.*|\([0-9]*-$release\)|[^|]*$/\1/p" "$SERVICES" | head -n 1)"
  RELEASE_NOW="${RELEASE_NOW:-${SOURCE_DATE_EPOCH:-$(date +%s)}-$release}"
  while IFS='|' read -r name target print key method route hash; do
    decide "$name" "$hash"
    printf '%s|%s|%s|%s|%s|%s|%s|%s\n' "$name" "$target" "$key" "$method" "$route" "$hash" "c${hash:0:12}" "$ACTION"
  done <"$SCRATCH/hashed" >"$PLAN"
}

decide() { # <name> <hash>: sets ACTION
  local tagged
  read_service "$1"
  tagged=" $TAGS "
  case "$tagged" in *" c${2:0:12}="*) tagged="${tagged#* c"${2:0:12}"=}" tagged="${tagged%% *}" ;; *) tagged="" ;; esac
  if [ -z "$SERVICE" ]; then
    ACTION=first
  elif [ -n "$FORCE" ] || [ "$SOURCE" != "$2" ] || [ -z "$tagged" ]; then
    ACTION=deploy
  elif [ "$PINNED" = yes ] && [ "$SERVING" = "$tagged" ]; then
    ACTION=unchanged
  else
    ACTION=resume
  fi
}

deploy_function() { # <name>
  local labels
  read_plan "$1"
  read_service "$1"
  function_flags "$1" "$HOLDS_KEY"
  labels="app=sidejob,source=$HASH,release=$RELEASE_NOW"
  case "$ACTION" in
    resume) say functions "$1" "deployed before, as $TAG" && return ;;
    # gcloud refuses --no-traffic for a service that is not there yet. Nobody has its address.
    first) run gcloud run deploy "$1" --source "$BUILD/functions/$1" --function "$TARGET" --tag "$TAG" \
      --labels "$labels" "${FLAGS[@]}" --quiet || return ;;
    deploy)
      [ "$PINNED" != yes ] || labels="$labels,before=$SERVING"
      run gcloud run deploy "$1" --source "$BUILD/functions/$1" --function "$TARGET" --no-traffic --tag "$TAG" \
        --labels "$labels" "${FLAGS[@]}" --quiet || return ;;
  esac
  did functions "$1" "deployed as $TAG"
}

serve_function() { # <name>
  local old="" entry
  read_plan "$1"
  read_service "$1"
  for entry in $TAGS; do
    [[ ! "$entry" =~ ^(c[0-9a-f]{12})= ]] || [ "${BASH_REMATCH[1]}" = "$TAG" ] || old="$old,${BASH_REMATCH[1]}"
  done
  run gcloud run services update-traffic "$1" --project "$PROJECT" --region "$REGION" ${old:+--remove-tags "${old#,}"} \
    --to-tags "$TAG=100" --quiet || return
  did functions "$1" "serves $TAG"
}

# The address of a function, with a tag or without. Cloud Run's documents call it the deterministic URL.
function_url() { # <name> [tag]
  printf 'https://%s%s-%s.%s.run.app' "${2:+$2---}" "$1" "$NUMBER" "$REGION"
}
