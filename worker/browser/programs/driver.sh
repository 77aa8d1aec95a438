#!/bin/sh
# Playwright's Node.js: says its number, and has its temporary files in the browser's folder.
set -e
echo $$ > "$SIDEJOB_FOLDER/driver" # stays the number of the process that this one becomes
TMPDIR=$SIDEJOB_FOLDER
export TMPDIR
exec "$SIDEJOB_NODE" --max-old-space-size=2048 "$@"
