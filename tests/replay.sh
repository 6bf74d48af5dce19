#!/usr/bin/env bash
# Recorded answers of the real Istio and Envoy, request by request: all of them with Envoy as the data plane; with maille's own proxy
# the cases that use only what it does today (no fault, corsPolicy, timeout or retries).
# usage: replay.sh SHARED_FOLDER   (MAILLE, ENVOY and PYTHON name the programs)
set -euo pipefail
shared=$1 python=${PYTHON:-python3}
folder=$shared/conformance/recorded/routing
"$python" "$shared/accept/replay.py" "$folder" --proxy envoy
some=$(mktemp -d)
trap 'rm -rf "$some"' EXIT
cp "$folder/base.yaml" "$folder/spec.json" "$some/"
"$python" - "$folder/cases.jsonl" > "$some/cases.jsonl" <<'PY'
import json, re, sys
for line in open(sys.argv[1]):
    if not re.search(r"^\s*(- )?(fault|corsPolicy|timeout|retries):", json.loads(line)["config"], re.M):
        sys.stdout.write(line)
PY
echo "$(wc -l < "$some/cases.jsonl") cases for maille's own proxy"
"$python" "$shared/accept/replay.py" "$some" --proxy maille
