# shellcheck shell=bash disable=SC2034,SC2153,SC2154 # the parts share their variables; deploy.sh reads them all
# Everything that can be known before anything is changed, and all that is wrong at once.

APIS="run.googleapis.com cloudbuild.googleapis.com artifactregistry.googleapis.com secretmanager.googleapis.com iam.googleapis.com"

FAULTS=()
# The same thing may be missing for two parts.
fault() {
  case $'\n'"$(printf '%s\n' ${FAULTS[@]+"${FAULTS[@]}"})"$'\n' in *$'\n'"$1"$'\n'*) return 0 ;; esac
  FAULTS+=("$1")
}

preflight() { # <need…>: project google supabase database functions provision worker state
  local need
  find_python
  for need in "$@"; do "check_$need"; done
  if [ "${#FAULTS[@]}" -gt 0 ]; then
    {
      printf 'deploy.sh: nothing was changed. Mend this first:\n'
      printf '  - %s\n' "${FAULTS[@]}"
    } >&2
    exit 2
  fi
  if command -v git >/dev/null 2>&1 && [ -n "$(git status --porcelain 2>/dev/null)" ]; then
    say checks git "warning: there are changes that are not committed, and they are deployed too"
  fi
}

find_python() {
  local name
  for name in python3.13 python3.12 python3.11 python3 python; do
    if PYTHON="$(command -v "$name")" && "$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      return
    fi
  done
  PYTHON=""
  fault "Python 3.11 or newer is not on PATH."
}

needs_variable() { # <name> <meaning>
  [ -n "${!1:-}" ] || fault "$1 is not set ($2)."
}

check_project() {
  needs_variable SUPABASE_PROJECT_REF "the project's reference: the 20 letters in its address"
  [ -z "${SUPABASE_PROJECT_REF:-}" ] || [[ "$SUPABASE_PROJECT_REF" =~ ^[a-z]{20}$ ]] ||
    fault "SUPABASE_PROJECT_REF is '$SUPABASE_PROJECT_REF'; a reference has 20 lowercase letters."
}

check_google() {
  [ -n "$PROJECT" ] || fault "GOOGLE_CLOUD_PROJECT is not set, nor --project given."
  [ -n "$REGION" ] || fault "GOOGLE_CLOUD_REGION is not set, nor --region given (for example europe-west1)."
  [ -z "$PROJECT" ] || [[ "$PROJECT" =~ ^[a-z][a-z0-9-]{4,28}[a-z0-9]$ ]] || fault "'$PROJECT' is no id of a Google Cloud project."
  [ -z "$REGION" ] || [[ "$REGION" =~ ^[a-z]+-[a-z]+[0-9]+$ ]] || fault "'$REGION' is no region of Google Cloud."
  NUMBER="" SERVICES="" SECRET_NAMES="" ACCOUNTS=""
  if ! command -v gcloud >/dev/null 2>&1; then
    fault "gcloud is not on PATH (https://cloud.google.com/sdk/docs/install)."
  elif [ -z "$(gcloud auth list --filter=status:ACTIVE '--format=value(account)' 2>/dev/null)" ]; then
    fault "gcloud is not signed in: gcloud auth login"
  elif [ "${#FAULTS[@]}" -eq 0 ] || [ -n "$PROJECT" ]; then
    look_at_project
  fi
}

look_at_project() {
  local api enabled missing=""
  NUMBER="$(gcloud projects describe "$PROJECT" '--format=value(projectNumber)' 2>/dev/null)" ||
    { fault "Google Cloud's project '$PROJECT' cannot be read: no such project, or no right to see it."; return; }
  enabled="$(gcloud services list --enabled --project "$PROJECT" '--format=value(config.name)' 2>/dev/null)" ||
    { fault "The APIs of '$PROJECT' cannot be listed."; return; }
  for api in $APIS; do
    case $'\n'"$enabled"$'\n' in *$'\n'"$api"$'\n'*) ;; *) missing="$missing $api" ;; esac
  done
  if [ -n "$missing" ]; then
    fault "These APIs are off: gcloud services enable$missing --project $PROJECT"
    return
  fi
  SECRET_NAMES="$(gcloud secrets list --project "$PROJECT" '--format=value(name.basename())' 2>/dev/null)" ||
    fault "The secrets of '$PROJECT' cannot be listed."
  ACCOUNTS="$(gcloud iam service-accounts list --project "$PROJECT" '--format=value(email)' 2>/dev/null)" ||
    fault "The service accounts of '$PROJECT' cannot be listed."
}

check_supabase() {
  SUPABASE_VERSION=""
  if ! command -v supabase >/dev/null 2>&1; then
    fault "supabase is not on PATH (https://supabase.com/docs/guides/local-development/cli/getting-started)."
    return
  fi
  SUPABASE_VERSION="$(supabase --version 2>/dev/null)" || true
  case "$SUPABASE_VERSION" in
    2.*) REMOTE=(--project-ref "${SUPABASE_PROJECT_REF:-}") ;;
    3.*) REMOTE=(--remote="${SUPABASE_PROJECT_REF:-}") ;;
    *) fault "supabase is version '$SUPABASE_VERSION'; 2 and 3 are known." && return ;;
  esac
  supabase projects list --output json >"$SCRATCH/projects" 2>/dev/null ||
    { fault "supabase is not signed in: supabase login, or SUPABASE_ACCESS_TOKEN"; return; }
  [ -z "${SUPABASE_PROJECT_REF:-}" ] || grep -q "\"$SUPABASE_PROJECT_REF\"" "$SCRATCH/projects" ||
    fault "The Supabase project '$SUPABASE_PROJECT_REF' is not among those of this account."
}

check_database() { :; }

check_secret_key() {
  has_secret sidejob-secret-key || [ -n "${SUPABASE_SECRET_KEY:-}" ] ||
    fault "SUPABASE_SECRET_KEY is not set, and there is no secret sidejob-secret-key yet."
  [ -z "${SUPABASE_SECRET_KEY:-}" ] || [[ "$SUPABASE_SECRET_KEY" == sb_secret_* ]] ||
    fault "SUPABASE_SECRET_KEY does not begin with sb_secret_."
}

check_publishable_key() {
  needs_variable SUPABASE_PUBLISHABLE_KEY "sb_publishable_…, from the project's API keys"
  [ -z "${SUPABASE_PUBLISHABLE_KEY:-}" ] || [[ "$SUPABASE_PUBLISHABLE_KEY" == sb_publishable_* ]] ||
    fault "SUPABASE_PUBLISHABLE_KEY does not begin with sb_publishable_."
}

check_functions() {
  check_publishable_key
  check_secret_key
  command -v curl >/dev/null 2>&1 || fault "curl is not on PATH."
  check_state
}

check_provision() {
  check_publishable_key
  check_secret_key
  needs_variable OWNER_EMAIL "who owns the first workspace"
  needs_variable WORKER_EMAIL "the worker's own user, an address that nobody else signs in with"
  [ -z "$NEW_WORKER_PASSWORD" ] || [ -z "${WORKER_PASSWORD:-}" ] ||
    fault "WORKER_PASSWORD is set, and --new-worker-password makes one up: take one of them away."
  [ -z "${OWNER_EMAIL:-}" ] || [ "${OWNER_EMAIL:-}" != "${WORKER_EMAIL:-}" ] || fault "OWNER_EMAIL and WORKER_EMAIL are the same."
}

check_worker() {
  local entry
  check_publishable_key
  needs_variable WORKER_EMAIL "the worker's own user, an address that nobody else signs in with"
  [ "$command" = all ] || [ -z "$PROJECT" ] || has_secret sidejob-worker-password ||
    fault "There is no secret sidejob-worker-password yet: ./deploy.sh provision"
  [[ "$WORKER_INSTANCES" =~ ^[0-9]{1,3}$ ]] || fault "WORKER_INSTANCES is '$WORKER_INSTANCES'; it must be a whole number."
  for entry in ${WORKER_SETTINGS:-}; do
    [[ "$entry" =~ ^[A-Z][A-Z0-9_]*=[^|]*$ ]] || fault "WORKER_SETTINGS has '$entry', which is not NAME=value."
    case "$entry" in
      *PASSWORD=* | *TOKEN=* | *SECRET*=*) fault "WORKER_SETTINGS has ${entry%%=*}, a secret: those have variables of their own." ;;
    esac
  done
  case "$WORKER_BUILDER" in
    cloud) ;;
    docker) command -v docker >/dev/null 2>&1 || fault "docker is not on PATH, and WORKER_BUILDER is docker." ;;
    *) fault "WORKER_BUILDER is '$WORKER_BUILDER'; it must be cloud or docker." ;;
  esac
  check_pools
}

# Which of gcloud's groups has worker pools, and how it is told their number: both have changed.
check_pools() {
  local help
  command -v gcloud >/dev/null 2>&1 || return 0
  if help="$(gcloud run worker-pools deploy --help 2>/dev/null)"; then
    POOLS=(gcloud run worker-pools)
  elif help="$(gcloud beta run worker-pools deploy --help 2>/dev/null)"; then
    POOLS=(gcloud beta run worker-pools)
  else
    fault "This gcloud knows no worker pools: gcloud components update"
    return
  fi
  case "$help" in *--instances*) COUNT=--instances ;; *) COUNT=--scaling ;; esac
}

check_names() {
  local name
  FUNCTIONS="$(cd functions && echo *)"
  for name in ${names[@]+"${names[@]}"}; do
    case " $FUNCTIONS " in *" $name "*) ;; *) fault "There is no function '$name'. There are: $FUNCTIONS." ;; esac
  done
}

# What is deployed now.
check_state() {
  local name
  check_names
  [ -z "$SERVICES" ] || return 0
  [ -n "$NUMBER" ] && [ -n "$REGION" ] && [ -n "$PYTHON" ] || return 0
  gcloud run services list --project "$PROJECT" --region "$REGION" --format=json >"$SCRATCH/services.json" 2>"$LOG" ||
    { fault "The services in $REGION cannot be listed: $(tail -n 1 "$LOG")"; return; }
  SERVICES="$SCRATCH/services"
  "$PYTHON" -m deploy.revisions <"$SCRATCH/services.json" >"$SERVICES" || fault "gcloud's list of services is not understood."
  for name in $FUNCTIONS; do
    read_service "$name"
    [ -z "$SERVICE" ] || [ "$APP" = sidejob ] ||
      fault "There is a service '$name' in $REGION that this script did not make. Choose another region or project."
  done
}

# read_service <name>: SERVICE is its name, or nothing where there is none; the others are what deploy/revisions.py says.
read_service() {
  while IFS='|' read -r SERVICE SERVING PINNED NEWEST APP SOURCE BEFORE RELEASE TAGS; do
    [ "$SERVICE" != "$1" ] || return 0
  done <"$SERVICES"
  SERVICE="" SERVING="" PINNED="" NEWEST="" APP="" SOURCE="" BEFORE="" RELEASE="" TAGS=""
}
