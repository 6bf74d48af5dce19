#!/usr/bin/env bash
# Recorded answers of the real Istio and Envoy, request by request, on a real Envoy and on maille's own proxy.
# usage: replay.sh SHARED_FOLDER   (MAILLE, ENVOY and PYTHON name the programs)
set -euo pipefail
for proxy in envoy maille; do
  for set in routing policy; do
    "${PYTHON:-python3}" "$(dirname "$0")/accept.py" "$1/accept" replay "$1/conformance/recorded/$set" --proxy $proxy
  done
done
