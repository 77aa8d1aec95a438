# shellcheck shell=bash disable=SC2034,SC2153,SC2154 # the parts share their variables; deploy.sh reads them all
# The secret manager, and who may read what in it.

GRANTED="" # by an earlier part of this run

has_secret() { # <secret>
  case $'\n'"$SECRET_NAMES"$'\n' in *$'\n'"$1"$'\n'*) return 0 ;; esac
  return 1
}

# The number of a secret's newest version.
newest_version() { # <secret>
  gcloud secrets versions list "$1" --project "$PROJECT" --sort-by=~createTime --limit=1 '--format=value(name.basename())' 2>>"$LOG"
}

# The value of a secret's newest version.
secret_value() { # <secret>
  gcloud secrets versions access latest --secret "$1" --project "$PROJECT" 2>>"$LOG"
}

# store_secret <secret> <value or nothing> <account>: sets VERSION to the number of the version that holds the value, which is
# added where it is missing; without a value, to the newest one's. The account may read it. The value goes by
# standard input, so that no list of processes and no history shows it.
store_secret() {
  local secret="$1" value="$2" account="$3" known="VERSION_${1//-/_}"
  if [ -n "${!known:-}" ]; then
    VERSION="${!known}" # by an earlier part of this run
  elif ! has_secret "$secret"; then
    run_telling "$value" gcloud secrets create "$secret" --project "$PROJECT" --replication-policy automatic --data-file=- ||
      fail secrets "$secret could not be made" "nothing was deployed" "mend it and run this again"
    SECRET_NAMES="$SECRET_NAMES"$'\n'"$secret"
    VERSION=1
    did secrets "$secret" "made, version 1"
  else
    VERSION="$(newest_version "$secret")" || fail secrets "$secret cannot be read" "nothing was deployed" "mend it and run this again"
    if [ -n "$value" ] && [ "$(secret_value "$secret" || true)" != "$value" ]; then
      run_telling "$value" gcloud secrets versions add "$secret" --project "$PROJECT" --data-file=- ||
        fail secrets "$secret got no new version" "what serves keeps the old one" "mend it and run this again"
      VERSION=$((VERSION + 1))
      did secrets "$secret" "version $VERSION added"
    fi
  fi
  printf -v "$known" '%s' "$VERSION"
  may_read "$secret" "$account"
}

may_read() { # <secret> <account>
  local members
  case "$GRANTED" in *"$1 $2,"*) return 0 ;; esac
  GRANTED="$GRANTED$1 $2,"
  members="$(gcloud secrets get-iam-policy "$1" --project "$PROJECT" '--flatten=bindings[].members' \
    --filter=bindings.role:roles/secretmanager.secretAccessor '--format=value(bindings.members)' 2>>"$LOG" || true)"
  case $'\n'"$members"$'\n' in *$'\n'"serviceAccount:$2"$'\n'*) return 0 ;; esac
  again run gcloud secrets add-iam-policy-binding "$1" --project "$PROJECT" --member "serviceAccount:$2" \
    --role roles/secretmanager.secretAccessor --condition None --quiet ||
    fail secrets "$2 could not be allowed to read $1" "what serves keeps serving" "mend it and run this again"
}

# A service account that was made a moment ago is not known everywhere yet.
again() {
  local try
  for try in 1 2 3 4 5; do
    "$@" && return 0
    [ "$try" = 5 ] || sleep 3
  done
  return 1
}

# account <name> <what it is for>: sets ACCOUNT to a service account that has no rights but those given one by one.
account() {
  ACCOUNT="$1@$PROJECT.iam.gserviceaccount.com"
  case $'\n'"$ACCOUNTS"$'\n' in *$'\n'"$ACCOUNT"$'\n'*) return 0 ;; esac
  run gcloud iam service-accounts create "$1" --project "$PROJECT" --display-name "$2" ||
    fail secrets "the service account $1 could not be made" "nothing was deployed" "mend it and run this again"
  ACCOUNTS="$ACCOUNTS"$'\n'"$ACCOUNT"
  did secrets "$1" "service account made"
}
