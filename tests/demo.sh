#!/usr/bin/env bash
# `maille demo` shows live numbers for every service, and leaves no process and no file behind.
set -euo pipefail
maille=${MAILLE:-target/release/maille}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
before=$(pgrep -fc "^$maille" || true)
TMPDIR=$work XDG_RUNTIME_DIR=$work timeout 60 "$maille" demo --for 8s --json > "$work/out.json"
"${PYTHON:-python3}" - "$work/out.json" <<'PY'
import json, sys
last = json.loads(open(sys.argv[1]).read().strip().splitlines()[-1])
seen = {s["service"] for s in last["services"] if s["requests"] > 0}
missing = {"productpage", "details", "reviews", "ratings"} - seen
assert not missing, f"no traffic at {missing}: {last}"
PY
rm "$work/out.json"
left=$(find "$work" -mindepth 1 | head)
[ -z "$left" ] || { echo "left behind: $left"; exit 1; }
after=$(pgrep -fc "^$maille" || true)
[ "$before" = "$after" ] || { echo "processes left behind: $after, before: $before"; exit 1; }
echo "1 passed, 0 failed"
