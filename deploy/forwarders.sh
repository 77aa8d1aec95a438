# shellcheck shell=bash disable=SC2034,SC2153,SC2154 # the parts share their variables; deploy.sh reads them all
# The forwarders under functions/v1: what the Supabase clients' functions.invoke reaches. They hold no secret but an address.

deploy_forwarders() {
  local address print known marks="$BUILD/forwarders.env"
  # {name} is the function's.
  address="https://{name}-$NUMBER.$REGION.run.app"
  print="$(printf '%s %s %s\n' "$address" "$("$PYTHON" -c 'import sys, pathlib; from deploy.stage import fingerprint
print(fingerprint(pathlib.Path("supabase/functions")))')" "$FUNCTIONS" | digests)"
  known="$(supabase secrets list "${REMOTE[@]}" --output json 2>>"$LOG")" ||
    fail forwarders "the project's function secrets cannot be listed" "the functions serve under their own addresses" "run this again"
  # The list has the SHA-256 of each value.
  if [ -z "$FORCE" ] && case "$known" in *"$(sha256 "$print")"*) true ;; *) false ;; esac; then
    say forwarders "$(echo "$FUNCTIONS" | wc -w | tr -d ' ')" unchanged
    return
  fi
  (umask 077 && printf 'SIDEJOB_FUNCTIONS=%s\n' "$address" >"$marks")
  run supabase secrets set --env-file "$marks" "${REMOTE[@]}" --yes ||
    fail forwarders "their address could not be set" "the functions serve under their own addresses" "run this again"
  # shellcheck disable=SC2086
  run supabase functions deploy $FUNCTIONS --use-api "${REMOTE[@]}" --yes ||
    fail forwarders "they could not be deployed" "the functions serve under their own addresses" "run this again"
  (umask 077 && printf 'SIDEJOB_FORWARDERS=%s\n' "$print" >"$marks")
  run supabase secrets set --env-file "$marks" "${REMOTE[@]}" --yes ||
    fail forwarders "their version could not be noted" "the forwarders serve" "run this again"
  rm -f "$marks"
  did forwarders "$(echo "$FUNCTIONS" | wc -w | tr -d ' ')" deployed
}

sha256() { # <text>
  printf '%s' "$1" | "$PYTHON" -c 'import hashlib, sys; print(hashlib.sha256(sys.stdin.buffer.read()).hexdigest())'
}
