#!/bin/sh
# Any store that can POST starts jobs; here curl does what it would:  examples/notify.sh BUCKET KEY
# Beforehand:  maskq gateway --rules examples/uploads.toml  with MASKQ_TRIGGER_TOKENS set.
set -eu
: "${MASKQ_TRIGGER_TOKENS:?is what the gateway was started with}"
: "${GATEWAY:=http://127.0.0.1:8090}"
curl --fail-with-body --silent --show-error "$GATEWAY/v1/triggers/s3" \
  --header "Authorization: Bearer ${MASKQ_TRIGGER_TOKENS%%,*}" \
  --header 'Content-Type: application/json' \
  --data @- <<JSON
{"Records": [{"eventName": "ObjectCreated:Put",
              "s3": {"bucket": {"name": "$1"}, "object": {"key": "$2"}}}]}
JSON
