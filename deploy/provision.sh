# shellcheck shell=bash disable=SC2034,SC2153,SC2154 # the parts share their variables; deploy.sh reads them all
# The first people. deploy/provision.py does it; the passwords are kept in the secret manager and nowhere else.

provision_people() {
  account sidejob-worker "Sidejob: the worker"
  local worker="$ACCOUNT" owner_password worker_password key
  # Kept before it is used: an end in between loses nothing, the next run goes on with what is kept.
  worker_password="${WORKER_PASSWORD:-}"
  if [ -n "$NEW_WORKER_PASSWORD" ] || { [ -z "$worker_password" ] && ! has_secret sidejob-worker-password; }; then
    worker_password="$(new_password)"
  fi
  store_secret sidejob-worker-password "$worker_password" "$worker"
  [ -n "$worker_password" ] || worker_password="$(secret_value sidejob-worker-password)" ||
    fail provision "the worker's password cannot be read" "nothing was changed" "mend it and run this again"
  owner_password="${OWNER_PASSWORD:-}"
  [ -n "$owner_password" ] || owner_password="$(kept_owner_password)" || exit 1
  key="$(secret_key)" || fail provision "the secret key cannot be read" "nothing was changed" "set SUPABASE_SECRET_KEY"
  SUPABASE_URL="$SUPABASE_URL" SUPABASE_PUBLISHABLE_KEY="$SUPABASE_PUBLISHABLE_KEY" SUPABASE_SECRET_KEY="$key" \
    WORKSPACE_NAME="$WORKSPACE_NAME" OWNER_EMAIL="$OWNER_EMAIL" OWNER_PASSWORD="$owner_password" \
    WORKER_EMAIL="$WORKER_EMAIL" WORKER_PASSWORD="$worker_password" WORKER_ID="$WORKER_ID" \
    run "$PYTHON" -m deploy.provision ||
    fail provision "the project refused" "what was made stays" "mend it and run this again"
  did provision "$WORKSPACE_NAME" "$OWNER_EMAIL owns it, $WORKER_EMAIL works in it"
}

# A password of the owner's own choice is not kept; one that is made up here has to be found somewhere.
kept_owner_password() {
  local made
  if has_secret sidejob-owner-password; then
    secret_value sidejob-owner-password
    return
  fi
  made="$(new_password)"
  run_telling "$made" gcloud secrets create sidejob-owner-password --project "$PROJECT" --replication-policy automatic --data-file=- ||
    fail provision "the owner's password could not be kept" "nothing was made" "mend it and run this again"
  printf '%s' "$made"
}

new_password() {
  "$PYTHON" -c 'import secrets; print(secrets.token_urlsafe(24), end="")'
}

# The project's secret key: what is set, else what is kept.
secret_key() {
  if [ -n "${SUPABASE_SECRET_KEY:-}" ]; then printf '%s' "$SUPABASE_SECRET_KEY"; else secret_value sidejob-secret-key; fi
}
