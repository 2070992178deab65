# One image for every role; the command chooses (worker by default). torch's wheels carry CUDA, so no
# CUDA base image is needed: the host's driver and its container toolkit are enough.
#   docker build -t maskq .                                       worker, GPU
#   docker build --build-arg TORCH_BUILD=cpu \
#                --build-arg TORCH_INDEX=URL -t maskq:cpu .       worker, CPU wheels from the index you name
# Every package comes in the version and with the hash that deploy/lock names (`make lock`).
# The base image by digest: --build-arg PYTHON_IMAGE=python@sha256:… (as your registry gives it). No digest
# is written here, because it would stay while the image gets its security updates.
ARG PYTHON_IMAGE=python:3.11-slim-bookworm
FROM ${PYTHON_IMAGE} AS build
ARG TORCH_BUILD=cuda
ARG TORCH_INDEX=
WORKDIR /src
RUN python -m venv /opt/maskq
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
COPY deploy/lock lock
RUN /opt/maskq/bin/pip install --require-hashes --no-deps -r lock/torch-${TORCH_BUILD}.txt \
      ${TORCH_INDEX:+--index-url "$TORCH_INDEX"}
RUN /opt/maskq/bin/pip install --require-hashes --no-deps -r lock/worker.txt
COPY pyproject.toml README.md LICENSE NOTICE ./
COPY api_client api_client
COPY worker worker
COPY gateway gateway
COPY standalone standalone
RUN /opt/maskq/bin/pip install --no-deps --no-build-isolation . && /opt/maskq/bin/pip check

FROM ${PYTHON_IMAGE}
RUN useradd --create-home --uid 10001 maskq && install -d -o maskq -g maskq /var/cache/maskq
# Triton compiles the mask kernel when a GPU worker first starts.
RUN apt-get update \
 && apt-get install --yes --no-install-recommends gcc libc6-dev \
 && rm -rf /var/lib/apt/lists/*
COPY --from=build /opt/maskq /opt/maskq
# What docker-compose.yml needs for its first start: credentials.py and the templates it fills.
COPY deploy/compose /usr/share/maskq/compose
COPY deploy/redis /usr/share/maskq/redis
# The root file system may be read-only: what is written goes to the weights' volume and to /tmp.
ENV PATH=/opt/maskq/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    XDG_CACHE_HOME=/var/cache/maskq \
    HF_HOME=/var/cache/maskq/huggingface \
    TRITON_CACHE_DIR=/var/cache/maskq/triton \
    HF_HUB_OFFLINE=1 \
    MASKQ_HEALTH_FILE=/tmp/maskq-healthy
USER maskq
VOLUME /var/cache/maskq
# Healthy: the main loop touched the file within the last ten seconds.
HEALTHCHECK --interval=5s --timeout=3s --start-period=120s --retries=3 \
    CMD test -n "$(find /tmp/maskq-healthy -newermt '-10 seconds' 2>/dev/null)"
STOPSIGNAL SIGTERM
CMD ["maskq", "worker"]
