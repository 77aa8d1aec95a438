#!/usr/bin/env bash
# Puts everything where it lives: database, functions, worker. ./deploy.sh --help; the guide is docs/deploy.md.
# It may be run again at any time: what is there already is left alone. The syntax is that of bash 3.2, which macOS has.
set -euo pipefail

here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
cd "$here"

usage() {
  cat <<'END'
usage: ./deploy.sh <command> [name…] [options]

commands
  all                    database, provision, functions, worker: in this order, up to the first failure
  database               apply the migrations of supabase/migrations that are missing; they may only add
  provision              the first workspace, its owner and the worker's user
  functions [name…]      deploy all functions, or these, and their forwarders under functions/v1
  worker                 build the worker's image and deploy its pool
  status                 say what is deployed
  rollback [name…]       back to what served before the last deployment: all functions and the worker, or these

options
  --dry-run              print the commands that would change something, and run none of them
  --project ID           Google Cloud project, instead of GOOGLE_CLOUD_PROJECT
  --region NAME          its region, instead of GOOGLE_CLOUD_REGION
  --env-file FILE        variables, one NAME=value a line; they go before those of the environment
  --force                deploy what is unchanged too, and apply migrations that take something away
  --new-worker-password  with provision or all: give the worker's user another password
  --help                 this text

Exit code: 0 done, 1 a step failed, 2 something has to be mended before anything can begin.
END
}

. "$here/deploy/steps.sh"
. "$here/deploy/settings.sh"
. "$here/deploy/preflight.sh"
. "$here/deploy/secrets.sh"
. "$here/deploy/database.sh"
. "$here/deploy/provision.sh"
. "$here/deploy/functions.sh"
. "$here/deploy/smoke.sh"
. "$here/deploy/forwarders.sh"
. "$here/deploy/worker.sh"
. "$here/deploy/status.sh"

command="" names=() env_file="" project="" region=""
DRY_RUN="" FORCE="" NEW_WORKER_PASSWORD=""
while [ $# -gt 0 ]; do
  case "$1" in
    --help | -h) usage; exit 0 ;;
    --dry-run) DRY_RUN=yes ;;
    --force) FORCE=yes ;;
    --new-worker-password) NEW_WORKER_PASSWORD=yes ;;
    --project | --region | --env-file)
      [ -n "${2:-}" ] || refuse "$1 needs a value."
      case "$1" in
        --project) project="$2" ;;
        --region) region="$2" ;;
        --env-file) env_file="$2" ;;
      esac
      shift ;;
    -*) refuse "There is no option $1." ;;
    *) if [ -z "$command" ]; then command="$1"; else names+=("$1"); fi ;;
  esac
  shift
done

case "$command" in
  all | database | provision | worker | status) [ "${#names[@]}" -eq 0 ] || refuse "$command takes no names." ;;
  functions | rollback) ;;
  "") refuse "Say what to do." ;;
  *) refuse "There is no command $command." ;;
esac
case "$command,$NEW_WORKER_PASSWORD" in
  all, | provision, | all,yes | provision,yes) ;;
  *,yes) refuse "--new-worker-password goes with provision or all." ;;
esac

read_settings "$env_file"
PROJECT="${project:-${GOOGLE_CLOUD_PROJECT:-}}"
REGION="${region:-${GOOGLE_CLOUD_REGION:-}}"
begin

case "$command" in
  all)
    preflight project google supabase database functions provision worker
    deploy_database
    provision_people
    deploy_functions
    deploy_forwarders
    deploy_worker
    report ;;
  database)
    preflight project supabase database
    deploy_database ;;
  provision)
    preflight project google provision
    provision_people ;;
  functions)
    preflight project google supabase functions
    deploy_functions ${names[@]+"${names[@]}"}
    deploy_forwarders ;;
  worker)
    preflight project google worker
    deploy_worker ;;
  status)
    preflight project google state
    show_status ;;
  rollback)
    preflight project google state
    roll_back ${names[@]+"${names[@]}"} ;;
esac
