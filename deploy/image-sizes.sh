#!/usr/bin/env bash
# Print the size of images, unpacked: all of it, and what is not of its base image.
#   deploy/image-sizes.sh maskq maskq-gateway
set -euo pipefail
base=${MASKQ_PYTHON_IMAGE:-python:3.11-slim-bookworm}
size() { docker image inspect --format '{{.Size}}' "$1"; }
below=$(size "$base")
printf "%-28s %6s MB\n" "$base" $((below / 1000000))
for image in "$@"; do
  all=$(size "$image")
  printf '%-28s %6s MB, %s MB above the base image\n' "$image" $((all / 1000000)) $(((all - below) / 1000000))
done
