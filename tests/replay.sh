#!/usr/bin/env bash
# Recorded answers of the real Istio and Envoy, request by request, on a real Envoy and on maille's own proxy.
# usage: replay.sh SHARED_FOLDER   (MAILLE, ENVOY and PYTHON name the programs)
set -euo pipefail
replay() { "${PYTHON:-python3}" "$(dirname "$0")/accept.py" "$shared/accept" replay "$shared/conformance/recorded/$1" --proxy "$2"; }
shared=$1

for proxy in envoy maille; do
  for set in routing policy; do
    replay $set $proxy
  done
done

# Hostile bytes. Where an RFC has us refuse what Envoy lets pass (docs/differences.md), a case has to fail, and no other may.
stricter=$(printf '%s\n' raw-body-te-folded raw-chunk-bad-end raw-cr-in-value)
said=$(mktemp)
trap 'rm -f "$said"' EXIT
replay raw maille >"$said" || true
tail -n 1 "$said"
others=$(sed -n 's/^FAIL \([^:]*\):.*/\1/p' "$said" | sort)
[ "$others" = "$stricter" ] || { cat "$said"; echo "these were to differ: $stricter"; exit 1; }
