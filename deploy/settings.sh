# shellcheck shell=bash disable=SC2034,SC2153,SC2154 # the parts share their variables; deploy.sh reads them all
# What the script is told by variables. docs/deploy.md lists them; a test compares the two.

# Those that hold a secret. They are shell variables only: no command gets one that it does not need.
SECRETS="SUPABASE_SECRET_KEY SUPABASE_DB_PASSWORD SUPABASE_JWT_SECRET OWNER_PASSWORD WORKER_PASSWORD SMOKE_PASSWORD FIGMA_API_TOKEN"
SETTINGS="GOOGLE_CLOUD_PROJECT GOOGLE_CLOUD_REGION SUPABASE_PROJECT_REF SUPABASE_PUBLISHABLE_KEY SUPABASE_URL
  SUPABASE_JWT_ISSUER SUPABASE_ACCESS_TOKEN FUNCTION_BASE_IMAGE FUNCTION_MAX_INSTANCES WORKSPACE_NAME OWNER_EMAIL
  WORKER_EMAIL WORKER_ID WORKER_INSTANCES WORKER_CPU WORKER_MEMORY WORKER_SETTINGS WORKER_BUILDER SMOKE_EMAIL $SECRETS"

read_settings() { # <file or nothing>
  local name
  if [ -n "$1" ]; then
    [ -f "$1" ] || refuse "There is no file $1."
    read_file "$1"
  fi
  # shellcheck disable=SC2163
  for name in $SECRETS; do export -n "$name"; done
  [ -z "${SUPABASE_ACCESS_TOKEN:-}" ] || export SUPABASE_ACCESS_TOKEN # the Supabase CLI reads it
  SUPABASE_URL="${SUPABASE_URL:-https://${SUPABASE_PROJECT_REF:-}.supabase.co}"
  SUPABASE_URL="${SUPABASE_URL%/}"
  FUNCTION_BASE_IMAGE="${FUNCTION_BASE_IMAGE:-python313}"
  FUNCTION_MAX_INSTANCES="${FUNCTION_MAX_INSTANCES:-20}"
  WORKSPACE_NAME="${WORKSPACE_NAME:-main}"
  WORKER_ID="${WORKER_ID:-worker}"
  WORKER_INSTANCES="${WORKER_INSTANCES:-1}"
  WORKER_CPU="${WORKER_CPU:-2}"
  WORKER_MEMORY="${WORKER_MEMORY:-2Gi}"
  WORKER_BUILDER="${WORKER_BUILDER:-cloud}"
}

# Takes NAME=value lines, with or without `export` and quotes. Nothing in the file is run.
read_file() { # <file>
  local line name value number=0
  while IFS= read -r line || [ -n "$line" ]; do
    number=$((number + 1))
    line="${line%$'\r'}"
    line="${line#export }"
    case "$line" in '' | '#'*) continue ;; *=*) ;; *) refuse "$1, line $number: not NAME=value." ;; esac
    name="${line%%=*}" value="${line#*=}"
    case " ${SETTINGS//$'\n'/ } " in *" $name "*) ;; *) refuse "$1, line $number: there is no variable $name." ;; esac
    case "$value" in
      \"*\") value="${value#\"}" value="${value%\"}" ;;
      \'*\') value="${value#\'}" value="${value%\'}" ;;
    esac
    [ -z "$value" ] || printf -v "$name" '%s' "$value"
  done <"$1"
}
