# shellcheck shell=bash disable=SC2034,SC2153,SC2154 # the parts share their variables; deploy.sh reads them all
# The worker: an image, deployed by its digest into a pool. It has no address; it claims jobs.

POOL=sidejob-worker

deploy_worker() {
  local image tag print digest figma="" hash labels
  account sidejob-worker "Sidejob: the worker"
  store_secret sidejob-worker-password "${WORKER_PASSWORD:-}" "$ACCOUNT"
  PASSWORD_VERSION="$VERSION"
  if [ -n "${FIGMA_API_TOKEN:-}" ] || has_secret sidejob-figma-token; then
    store_secret sidejob-figma-token "${FIGMA_API_TOKEN:-}" "$ACCOUNT"
    figma=",FIGMA_API_TOKEN=sidejob-figma-token:$VERSION"
  fi
  print="$("$PYTHON" -m deploy.image "$BUILD/worker-image" 2>>"$LOG")" ||
    fail worker "its image cannot be staged" "the old worker works" "see the log"
  worker_flags "$figma"
  hash="$(printf '%s %s\n' "$print" "${FLAGS[*]}" | digests)"
  read_pool
  if [ -z "$FORCE" ] && [ "$SOURCE" = "$hash" ] && [ -n "$SERVING" ] && [ "$NEWEST" = "$SERVING" ]; then
    say worker "$POOL" unchanged
    return
  fi
  tag="i${print:0:12}"
  image="$REGION-docker.pkg.dev/$PROJECT/sidejob/worker"
  build_image "$image:$tag"
  digest="$(image_digest "$image:$tag")"
  if [ -z "$digest" ]; then
    [ -n "$DRY_RUN" ] || fail worker "the image's digest cannot be read" "the old worker works" "run this again"
    digest="sha256:of-the-image-when-it-is-built"
  fi
  labels="app=sidejob,source=$hash"
  [ -z "$SERVING" ] || labels="$labels,before=$SERVING"
  run "${POOLS[@]}" deploy "$POOL" --image "$image@$digest" --labels "$labels" "${FLAGS[@]}" --quiet ||
    fail worker "the pool was not deployed" "the old worker works, and jobs wait in the queue until one does" \
      "${POOLS[*]} logs read $POOL --region $REGION --project $PROJECT; mend it, then run this again"
  # After a rollback the instances are the old revision's by name, whatever is deployed.
  [ "$PINNED" != yes ] ||
    run "${POOLS[@]}" update-instance-split "$POOL" --project "$PROJECT" --region "$REGION" --to-latest --quiet ||
    fail worker "the new revision got no instances" "the old worker works" "run this again"
  did worker "$POOL" "deployed, $WORKER_INSTANCES running"
}

worker_flags() { # <more secrets>
  local variables entry
  variables="SUPABASE_URL=$SUPABASE_URL|SUPABASE_PUBLISHABLE_KEY=$SUPABASE_PUBLISHABLE_KEY|WORKER_EMAIL=$WORKER_EMAIL"
  for entry in ${WORKER_SETTINGS:-}; do variables="$variables|$entry"; done
  FLAGS=(--project "$PROJECT" --region "$REGION" "$COUNT" "$WORKER_INSTANCES" --service-account "$ACCOUNT"
    --set-env-vars "^|^$variables" --set-secrets "WORKER_PASSWORD=sidejob-worker-password:$PASSWORD_VERSION$1"
    --cpu "$WORKER_CPU" --memory "$WORKER_MEMORY")
}

# Sets SERVICE SERVING … of the pool, as read_service does.
read_pool() {
  SERVICE="" SERVING="" PINNED="" NEWEST="" APP="" SOURCE="" BEFORE="" RELEASE="" TAGS=""
  "${POOLS[@]}" describe "$POOL" --project "$PROJECT" --region "$REGION" --format=json >"$SCRATCH/pool.json" 2>>"$LOG" || return 0
  IFS='|' read -r SERVICE SERVING PINNED NEWEST APP SOURCE BEFORE RELEASE TAGS <<END
$("$PYTHON" -m deploy.revisions <"$SCRATCH/pool.json")
END
}

image_digest() { # <image:tag>
  gcloud artifacts docker images describe "$1" --project "$PROJECT" '--format=value(image_summary.digest)' 2>>"$LOG" || true
}

build_image() { # <image:tag>
  [ -z "$(image_digest "$1")" ] || return 0
  gcloud artifacts repositories describe sidejob --location "$REGION" --project "$PROJECT" >>"$LOG" 2>&1 ||
    run gcloud artifacts repositories create sidejob --repository-format docker --location "$REGION" --project "$PROJECT" ||
    fail worker "there is no place for the image" "the old worker works" "run this again"
  case "$WORKER_BUILDER" in
    cloud)
      run gcloud builds submit "$BUILD/worker-image" --tag "$1" --project "$PROJECT" --timeout 3600 --quiet ||
        fail worker "the image was not built" "the old worker works" "see the log, then run this again" ;;
    docker)
      {
        run docker build --platform linux/amd64 --tag "$1" "$BUILD/worker-image" &&
          run gcloud auth configure-docker "$REGION-docker.pkg.dev" --quiet &&
          run docker push "$1"
      } || fail worker "the image was not built and pushed" "the old worker works" "see the log, then run this again" ;;
  esac
  did worker image "built as ${1##*:}"
}
