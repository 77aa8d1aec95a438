#!/bin/sh
# The image's entry: a display where a window is wanted, and then the worker in this shell's place.
set -eu

case "$(printf %s "${HEADLESS:-true}" | tr '[:upper:]' '[:lower:]')" in
  false | 0 | no | off)
    if [ -z "${DISPLAY:-}" ]; then
      if ! command -v Xvfb > /dev/null; then
        echo "The worker cannot start: HEADLESS is $HEADLESS, and this image was built without Xvfb (HEADFUL=false)" >&2
        exit 2
      fi
      export DISPLAY=:99
      # One that died comes back; the browser, which died with it, is started again by the worker.
      while :; do
        Xvfb "$DISPLAY" -screen 0 1920x1080x24 -nolisten tcp -nolisten local -noreset || sleep 1
      done > /dev/null 2>&1 &
      tries=0
      until [ -S /tmp/.X11-unix/X99 ]; do
        tries=$((tries + 1))
        if [ "$tries" -gt 100 ]; then
          echo "The worker cannot start: Xvfb made no display in 10 seconds; it needs a /tmp that can be written" >&2
          exit 1
        fi
        sleep 0.1
      done
    fi
    ;;
esac

exec python3 -m worker
