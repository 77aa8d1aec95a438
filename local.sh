#!/usr/bin/env bash
# Runs everything on one machine: ./local.sh --help. The first run sets up .local/ (Python and Node packages, a Chromium).
set -euo pipefail

here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"

for name in python3.13 python3.12 python3.11 python3 python; do
  if python="$(command -v "$name")" && "$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; then
    # Our own package comes first, wherever this is called from; -P keeps the caller's folder out.
    export PYTHONPATH="$here"
    exec "$python" -P -m local.setup "$@"
  fi
done

echo "Python 3.11, 3.12 or 3.13 is needed, and none is on PATH. For example: apt-get install python3 python3-venv, or brew install python@3.13" >&2
exit 1
