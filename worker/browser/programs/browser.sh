#!/bin/sh
# The browser, with the relay between it and the driver: what it writes to file descriptor 4 is for the driver.
# `ulimit -d` holds for each process; where it cannot be set, the worker's own look at the memory has to do.
set -e
mkfifo -m 600 "$SIDEJOB_FOLDER/words"
"$SIDEJOB_PYTHON" -I -S "$SIDEJOB_RELAY" < "$SIDEJOB_FOLDER/words" 1>&4 2> /dev/null 3<&- 4>&- &
program=$SIDEJOB_PROGRAM words=$SIDEJOB_FOLDER/words
if [ "$SIDEJOB_DATA_KB" -gt 0 ]; then ulimit -d "$SIDEJOB_DATA_KB" || true; fi
unset SIDEJOB_FOLDER SIDEJOB_PYTHON SIDEJOB_RELAY SIDEJOB_PROGRAM SIDEJOB_DATA_KB
exec "$program" "$@" 4> "$words"
