# shellcheck shell=bash disable=SC2034,SC2153,SC2154 # the parts share their variables; deploy.sh reads them all
# Migrations. The remote is always named: plain `db push` means the linked project in version 2 and the local stack in 3.

deploy_database() {
  local target said pending
  [ -z "${SUPABASE_DB_PASSWORD:-}" ] || export SUPABASE_DB_PASSWORD # never an argument
  case "$SUPABASE_VERSION" in
    2.*)
      # Some releases of 2 take no --project-ref here. Linking writes to supabase/.temp alone.
      supabase link --project-ref "$SUPABASE_PROJECT_REF" >>"$LOG" 2>&1 ||
        fail database "the project could not be linked" "nothing was changed" "supabase link --project-ref $SUPABASE_PROJECT_REF"
      target=--linked ;;
    3.*) target=--remote="$SUPABASE_PROJECT_REF" ;;
  esac
  said="$(supabase db push "$target" --dry-run --yes 2>&1)" || {
    printf '%s\n' "$said" >>"$LOG"
    fail database "what is missing cannot be asked" "nothing was changed" \
      "set SUPABASE_DB_PASSWORD; on a network without IPv6 see docs/deploy.md"
  }
  case "$said" in
    *"is up to date"*) export -n SUPABASE_DB_PASSWORD && say database migrations unchanged && return ;;
  esac
  pending="$(printf '%s\n' "$said" | sed -n 's/^[^A-Za-z0-9]*\([0-9]\{14\}_[A-Za-z0-9_]*\.sql\).*/\1/p')"
  only_expands "$pending"
  run supabase db push "$target" --yes ||
    fail database "a migration failed" "those before it are applied, and the old functions and worker run on them" \
      "mend the migration and run this again"
  export -n SUPABASE_DB_PASSWORD
  did database migrations "$(printf '%s\n' "$pending" | grep -c . || true) applied"
}

# The first migrations come to an empty database: nobody misses anything there.
only_expands() { # <names, one a line>
  local found every
  every="$(find supabase/migrations -name '*.sql' | wc -l)"
  [ -z "$FORCE" ] && [ "$(printf '%s\n' "$1" | grep -c .)" -lt "$every" ] || return 0
  # shellcheck disable=SC2086
  found="$("$PYTHON" -m deploy.expanding $1)" ||
    fail database "a migration takes something away: $found" "nothing was changed, and everything serves as before" \
      "deploy code that does without it first; then let the migration say '-- old code survives: <why>', or use --force"
}
