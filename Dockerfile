# Two images.
#   docker build -t maskq .                                              worker, GPU
#   docker build --build-arg TORCH_BUILD=cpu \
#                --build-arg TORCH_INDEX=URL -t maskq:cpu .              worker, CPU wheels from the index you name
#   docker build --target gateway -t maskq-gateway .                     gateway, webhooks, SQS: no torch, no compiler
#   docker build --target worker-with-weights \
#                --build-arg WEIGHTS=Intel/dpt-large-ade -t maskq:dpt .  worker that needs no volume of weights
# torch's wheels carry CUDA, so no CUDA base image is needed: the host's driver and its container toolkit
# are enough. Every package comes in the version and with the hash that deploy/lock names (`make lock`).
# The base image by digest: --build-arg PYTHON_IMAGE=python@sha256:… (as your registry gives it). No digest
# is written here, because it would stay while the image gets its security updates.
ARG PYTHON_IMAGE=python:3.11-slim-bookworm
# What the packages are installed in; nothing else of it reaches an image.
ARG BUILD_IMAGE=python:3.11-slim-bookworm
ARG TORCH_BUILD=cuda

# What the wheel is built from; a stage of its own, so that each image installs its dependencies before.
FROM scratch AS sources
COPY pyproject.toml README.md LICENSE NOTICE /
COPY api_client /api_client
COPY worker /worker
COPY gateway /gateway
COPY standalone /standalone

FROM ${BUILD_IMAGE} AS build
WORKDIR /src
RUN python -m venv /opt/maskq
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
COPY deploy/lock lock

FROM ${PYTHON_IMAGE} AS runtime
RUN useradd --create-home --uid 10001 maskq && install -d -o maskq -g maskq /var/cache/maskq
# What docker-compose.yml needs for its first start: credentials.py and the templates it fills.
COPY deploy/compose /usr/share/maskq/compose
COPY deploy/redis /usr/share/maskq/redis
# The root file system may be read-only: what is written goes to /tmp and to the weights' volume.
ENV PATH=/opt/maskq/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    MASKQ_HEALTH_FILE=/tmp/maskq-healthy
USER 10001:10001
# Healthy: the main loop touched the file within the last ten seconds.
HEALTHCHECK --interval=5s --timeout=3s --start-period=120s --retries=3 \
    CMD test -n "$(find /tmp/maskq-healthy -newermt '-10 seconds' 2>/dev/null)"
STOPSIGNAL SIGTERM

FROM build AS build-gateway
RUN /opt/maskq/bin/pip install --require-hashes --no-deps -r lock/gateway.txt
COPY --from=sources / .
RUN /opt/maskq/bin/pip install --no-deps --no-build-isolation . && /opt/maskq/bin/pip check

FROM runtime AS gateway
COPY --from=build-gateway /opt/maskq /opt/maskq
CMD ["maskq", "gateway", "--host", "0.0.0.0"]

FROM build AS build-worker
ARG TORCH_BUILD
ARG TORCH_INDEX=
RUN /opt/maskq/bin/pip install --require-hashes --no-deps -r lock/torch-${TORCH_BUILD}.txt \
      ${TORCH_INDEX:+--index-url "$TORCH_INDEX"}
RUN /opt/maskq/bin/pip install --require-hashes --no-deps -r lock/worker.txt
COPY --from=sources / .
RUN /opt/maskq/bin/pip install --no-deps --no-build-isolation . && /opt/maskq/bin/pip check

FROM runtime AS runtime-cpu

FROM runtime AS runtime-cuda
# Triton compiles the mask kernel when a GPU worker first starts.
USER root
RUN apt-get update \
 && apt-get install --yes --no-install-recommends gcc libc6-dev \
 && rm -rf /var/lib/apt/lists/*
USER 10001:10001

FROM runtime-${TORCH_BUILD} AS worker
COPY --from=build-worker /opt/maskq /opt/maskq
ENV XDG_CACHE_HOME=/var/cache/maskq \
    HF_HOME=/var/cache/maskq/huggingface \
    TRITON_CACHE_DIR=/var/cache/maskq/triton \
    HF_HUB_OFFLINE=1
VOLUME /var/cache/maskq
CMD ["maskq", "worker"]

FROM worker AS worker-with-weights
ARG WEIGHTS=Intel/dpt-large-ade
ARG WEIGHTS_REVISION=
# Outside the volume, so that an empty one does not hide them.
ENV HF_HOME=/opt/weights MASKQ_MODEL=${WEIGHTS}
USER root
RUN HF_HUB_OFFLINE=0 maskq weights pull "$WEIGHTS" ${WEIGHTS_REVISION:+--revision "$WEIGHTS_REVISION"}
USER 10001:10001

FROM worker
