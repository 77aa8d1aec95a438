#!/bin/bash
# Stands in for gcloud, supabase, curl, docker and sleep: linked under those names, told apart by its own.
# It notes each call in $FAKE/calls, as it could be typed; keeps what was made in files under $FAKE; and answers as the
# real ones do in what deploy.sh reads. A command or a flag that it does not know is noted in $FAKE/unknown: exit 64.
# A call that matches a line of $FAKE/fail fails, a question for help excepted. Flags are those of gcloud 528 and newer pages, and of supabase 2 and 3.
set -u
shopt -s extglob nullglob
me="${0##*/}"

printf -v line '%q ' "$me" "$@"
line="${line% }"
printf '%s\n' "$line" >>"$FAKE/calls"
# What each command finds in its environment that should not be there.
for name in SUPABASE_SECRET_KEY WORKER_PASSWORD OWNER_PASSWORD SUPABASE_DB_PASSWORD; do
  [ -z "${!name+x}" ] || printf '%s %s\n' "$me" "$name" >>"$FAKE/environment"
done
while IFS= read -r pattern; do
  # shellcheck disable=SC2254
  case "$line" in *--help) ;; $pattern) echo "$me: told to fail" >&2; exit 1 ;; esac
done <"$FAKE/fail"

unknown() {
  printf '%s\n' "$line" >>"$FAKE/unknown"
  echo "$me: unknown: $*" >&2
  exit 64
}

# Reads the words into VALUE_<flag> and WORDS. Arguments: the flags with a value, a --, those without, a --, the call's words.
take() {
  local with=" " without=" " flag value
  while [ "$1" != -- ]; do with="$with$1 "; shift; done; shift
  while [ "$1" != -- ]; do without="$without$1 "; shift; done; shift
  WORDS=()
  while [ $# -gt 0 ]; do
    case "$1" in
      --*=*) flag="${1%%=*}" value="${1#*=}" ;;
      --*) flag="$1" value="${2-}" ;;
      *) WORDS+=("$1"); shift; continue ;;
    esac
    if [[ "$with" == *" $flag "* ]]; then
      [[ "$1" == --*=* ]] || shift
      flag="${flag#--}"
      printf -v "VALUE_${flag//-/_}" %s "$value"
    elif [[ "$without" != *" $flag "* ]]; then
      unknown "flag $flag"
    fi
    shift
  done
}

labels_into() { # <folder> <labels>: adds to those that are there
  local entry
  for entry in ${2//,/ }; do printf %s "${entry#*=}" >"$1/label.${entry%%=*}"; done
}

read_field() { # <file>
  [ ! -f "$1" ] || cat "$1"
}

json_labels() { # <folder>
  local file list=""
  for file in "$1"/label.*; do list="$list,\"${file##*/label.}\":\"$(<"$file")\""; done
  printf '{%s}' "${list#,}"
}

# One service or pool as JSON. Its files: newest, serving, pinned (yes or no), tag.<tag> with a revision each.
json_of() { # <folder> <key of the targets>
  local file targets serving pinned=""
  serving="$(<"$1/serving")"
  [ "$(<"$1/pinned")" = yes ] || pinned=',"latestRevision":true'
  targets="{\"revisionName\":\"$serving\",\"percent\":100$pinned}"
  for file in "$1"/tag.*; do targets="$targets,{\"revisionName\":\"$(<"$file")\",\"tag\":\"${file##*/tag.}\"}"; done
  printf '{"metadata":{"name":"%s","labels":%s},"status":{"latestCreatedRevisionName":"%s","%s":[%s]}}' \
    "${1##*/}" "$(json_labels "$1")" "$(<"$1/newest")" "$2" "$targets"
}

# As gcloud reads it: ^X^ in front says what stands between the variables; without it a comma does.
variables_of() { # <value>
  local list="$1" between=, entry
  if [[ "$list" == "^"?"^"* ]]; then between="${list:1:1}" list="${list:3}"; fi
  local IFS="$between"
  for entry in $list; do
    [[ "$entry" =~ ^[A-Z][A-Z0-9_]*= ]] || unknown "variable $entry"
    printf '%s\n' "$entry"
  done
}

next_revision() { # <folder>
  local count=0
  [ ! -f "$1/count" ] || count="$(<"$1/count")"
  count=$((count + 1))
  printf %s "$count" >"$1/count"
  printf '%s-%05d-abc' "${1##*/}" "$count" >"$1/newest"
}

gcloud_deploy() {
  local folder="$FAKE/services/${WORDS[2]}" no_traffic=""
  [[ " $line " != *" --no-traffic "* ]] || no_traffic=yes
  if [ ! -d "$folder" ]; then
    [ -z "$no_traffic" ] || { echo "--no-traffic not supported when creating a new service." >&2; exit 1; }
    mkdir -p "$folder"
    next_revision "$folder"
    cp "$folder/newest" "$folder/serving"
    printf no >"$folder/pinned"
  else
    next_revision "$folder"
    # With --no-traffic gcloud gives what LATEST had to the revision that it was.
    if [ -n "$no_traffic" ]; then printf yes >"$folder/pinned"; elif [ "$(<"$folder/pinned")" = no ]; then cp "$folder/newest" "$folder/serving"; fi
  fi
  [ -z "${VALUE_tag:-}" ] || cp "$folder/newest" "$folder/tag.$VALUE_tag"
  labels_into "$folder" "${VALUE_labels:-}"
  variables_of "$VALUE_set_env_vars" >"$folder/variables"
  [ -f "$VALUE_source/main.py" ] && [ -f "$VALUE_source/requirements.txt" ] || unknown "no sources in $VALUE_source"
}

update_traffic() {
  local folder="$FAKE/services/${WORDS[3]}" tag
  [ -d "$folder" ] || { echo "no such service" >&2; exit 1; }
  for tag in ${VALUE_remove_tags//,/ }; do rm -f "$folder/tag.$tag"; done
  if [ -n "$VALUE_to_tags" ]; then
    cp "$folder/tag.${VALUE_to_tags%=100}" "$folder/serving" || exit 1
  else
    printf %s "${VALUE_to_revisions%=100}" >"$folder/serving"
  fi
  printf yes >"$folder/pinned"
}

pool() { # the words after gcloud [beta] run worker-pools
  local folder="$FAKE/pools/$2"
  case "$1" in
    deploy)
      take --image --labels --project --region --instances --scaling --service-account --set-env-vars --set-secrets --cpu --memory -- --quiet -- "${@:3}"
      if [ -d "$folder" ]; then next_revision "$folder"; else
        mkdir -p "$folder"
        next_revision "$folder"
        printf no >"$folder/pinned"
      fi
      [ "$(<"$folder/pinned")" = yes ] || cp "$folder/newest" "$folder/serving"
      variables_of "$VALUE_set_env_vars" >"$folder/variables"
      labels_into "$folder" "$VALUE_labels" ;;
    describe)
      [ -d "$folder" ] || { echo "Cannot find worker pool" >&2; exit 1; }
      json_of "$folder" instanceSplits ;;
    update-instance-split)
      VALUE_to_revisions=""
      take --project --region --to-revisions -- --to-latest --quiet -- "${@:3}"
      if [ -n "$VALUE_to_revisions" ]; then
        printf %s "${VALUE_to_revisions%=100}" >"$folder/serving"
        printf yes >"$folder/pinned"
      else
        cp "$folder/newest" "$folder/serving"
        printf no >"$folder/pinned"
      fi ;;
    *) unknown "$1" ;;
  esac
}

# supabase project labels of secrets are numbered folders of files.
new_version() { # <secret>
  local count
  count=("$FAKE/secrets/$1"/+([0-9]))
  cat >"$FAKE/secrets/$1/$((${#count[@]} + 1))"
}

list_folder() { # <folder>
  local entry
  for entry in "$1"/*; do printf '%s\n' "${entry##*/}"; done
}

secrets() {
  case "$1 $2" in
    "list "*) list_folder "$FAKE/secrets" ;;
    "create "*)
      [ ! -d "$FAKE/secrets/$2" ] || { echo "already exists" >&2; exit 1; }
      take --project --replication-policy --data-file -- -- "${@:3}"
      mkdir -p "$FAKE/secrets/$2"
      new_version "$2" ;;
    "versions add") take --project --data-file -- -- "${@:4}" && new_version "$3" ;;
    "versions list") list_folder "$FAKE/secrets/$3" | grep -v policy | sort -n | tail -n 1 ;;
    "versions access")
      take --secret --project -- -- "${@:4}"
      cat "$FAKE/secrets/$VALUE_secret/$(list_folder "$FAKE/secrets/$VALUE_secret" | grep -v policy | sort -n | tail -n 1)" ;;
    "get-iam-policy "*) read_field "$FAKE/secrets/$2/policy" ;;
    "add-iam-policy-binding "*)
      take --project --member --role --condition -- --quiet -- "${@:3}"
      [ -d "$FAKE/secrets/$2" ] || exit 1
      printf '%s\n' "$VALUE_member" >>"$FAKE/secrets/$2/policy" ;;
    *) unknown "$1 $2" ;;
  esac
}

gcloud_main() {
  case "$*" in
    "auth list "*) read_field "$FAKE/account" ;;
    "auth configure-docker "*) ;;
    "projects describe "*) echo 123456789012 ;;
    "services list --enabled "*) cat "$FAKE/apis" ;;
    "secrets "*) shift && secrets "$@" ;;
    "iam service-accounts list "*) read_field "$FAKE/accounts" ;;
    "iam service-accounts create "*)
      take --project --display-name -- -- "$@"
      printf '%s@%s.iam.gserviceaccount.com\n' "${WORDS[3]}" "$VALUE_project" >>"$FAKE/accounts" ;;
    "run services list "*)
      take --project --region --format -- -- "$@"
      local folder list=""
      for folder in "$FAKE/services"/*; do list="$list,$(json_of "$folder" traffic)"; done
      printf '[%s]\n' "${list#,}" ;;
    "run deploy "*)
      take --source --function --tag --labels --project --region --base-image --service-account --set-env-vars --set-secrets \
        --concurrency --timeout --min --max-instances --memory --cpu -- --no-traffic --clear-secrets --cpu-boost \
        --allow-unauthenticated --quiet -- "$@"
      gcloud_deploy ;;
    "run services update-traffic "*)
      VALUE_remove_tags="" VALUE_to_tags="" VALUE_to_revisions=""
      take --project --region --remove-tags --to-tags --to-revisions -- --quiet -- "$@"
      update_traffic ;;
    "run worker-pools deploy --help") [ "$(<"$FAKE/pools.group")" = stable ] && echo "--instances=INSTANCES" || exit 2 ;;
    "beta run worker-pools deploy --help") echo "--scaling=SCALING" ;;
    "run worker-pools "*) shift 2 && pool "$@" ;;
    "beta run worker-pools "*) shift 3 && pool "$@" ;;
    "artifacts repositories describe "*) [ -f "$FAKE/repository" ] || exit 1 ;;
    "artifacts repositories create "*)
      take --repository-format --location --project -- -- "$@"
      : >"$FAKE/repository" ;;
    "artifacts docker images describe "*)
      take --project --format -- -- "$@"
      grep -Fqx "${WORDS[4]}" "$FAKE/images" && echo "sha256:$(printf 'd%.0s' {1..64})" || exit 1 ;;
    "builds submit "*)
      take --tag --project --timeout -- --quiet -- "$@"
      [ -f "${WORDS[2]}/Dockerfile" ] || unknown "no Dockerfile"
      printf '%s\n' "$VALUE_tag" >>"$FAKE/images" ;;
    *) unknown "$*" ;;
  esac
}

supabase_main() {
  local major name
  major="$(<"$FAKE/supabase.version")"
  major="${major%%.*}"
  case "$*" in
    --version) cat "$FAKE/supabase.version" ;;
    "projects list --output json") [ -f "$FAKE/supabase.account" ] && echo '[{"id":"abcdefghijklmnopqrst"}]' || exit 1 ;;
    "link --project-ref abcdefghijklmnopqrst") [ "$major" = 2 ] || unknown "link is for version 2" ;;
    "db push --linked"* | "db push --remote=abcdefghijklmnopqrst"*)
      case "$major,$3" in 2,--linked | 3,--remote=*) ;; *) unknown "$3 in version $major" ;; esac
      if [ ! -s "$FAKE/pending" ]; then
        echo "Remote database is up to date."
      elif [ "${4:-}" = --dry-run ]; then
        echo "Would push these migrations:" >&2
        while read -r name; do printf ' • %s\n' "$name" >&2; done <"$FAKE/pending"
      else
        [ "${4:-}" = --yes ] || unknown "would ask"
        : >"$FAKE/pending"
      fi ;;
    "secrets list "*)
      printf '['
      for name in "$FAKE/edge"/*; do printf '{"name":"%s","value":"%s"},' "${name##*/}" "$(sha256sum <"$name" | cut -d' ' -f1)"; done
      printf '{}]\n' ;;
    "secrets set "*)
      take --env-file --project-ref --remote -- --yes -- "$@"
      while IFS='=' read -r name value; do printf %s "$value" >"$FAKE/edge/$name"; done <"$VALUE_env_file" ;;
    "functions deploy "*)
      take --project-ref --remote -- --use-api --yes -- "$@"
      for name in "${WORDS[@]:2}"; do [ -f "supabase/functions/$name/index.ts" ] || unknown "no forwarder $name"; done ;;
    *) unknown "$*" ;;
  esac
}

# Answers as a good function does: 204 to a preflight, 401 in our words without a credential, 200 with one.
curl_main() {
  VALUE_config="" VALUE_request=GET
  take --max-time --retry --output --write-out --request --config -- --silent --show-error --retry-connrefused -- "$@"
  if [ "$VALUE_request" = OPTIONS ]; then
    printf 204
  elif [ "$VALUE_config" = - ]; then
    cat >>"$FAKE/curl.stdin"
    printf '{"ok":true}' >"$VALUE_output"
    printf 200
  else
    printf '{"error":"…","code":"missing_token","details":null,"hint":null,"requestId":"x"}' >"$VALUE_output"
    printf 401
  fi
}

case "$me" in
  gcloud) gcloud_main "$@" ;;
  supabase) supabase_main "$@" ;;
  curl) curl_main "$@" ;;
  docker)
    case "$*" in
      "build --platform linux/amd64 --tag "*) ;;
      "push "*) printf '%s\n' "$2" >>"$FAKE/images" ;;
      *) unknown "$*" ;;
    esac ;;
  sleep) ;;
  *) unknown "$me" ;;
esac
