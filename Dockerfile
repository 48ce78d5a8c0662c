# The collector as an image: scripts/image builds it, docs/decisions/0038-image.md says why it is made this way.
#
# Debian 12, because bcc exists only for the distribution's own Python. BASE may be any image of the same content, such as one
# named by its digest, or what `scripts/image --base` makes where no registry can be reached.
ARG BASE=debian:bookworm-slim

# Our own code and the packages of PyPI. The compiler stays in this stage.
FROM ${BASE} AS build
# PEM of an authority of your network, where a proxy reads what goes to PyPI. It does not reach the image.
ARG CA_CERTIFICATES=
RUN apt-get update \
    && apt-get install -y --no-install-recommends binutils ca-certificates gcc libc6-dev zlib1g-dev python3-dev python3-venv \
    && printf '%s\n' "$CA_CERTIFICATES" > /usr/local/share/ca-certificates/build.crt \
    && update-ca-certificates
WORKDIR /src
COPY deploy/image/stand-ins deploy/image/
RUN mkdir /opt/stand-ins && deploy/image/stand-ins /opt/stand-ins
# Only what has one of the digests in these files is installed. /opt/build has pip, setuptools and Cython, /opt/collector none of them.
COPY deploy/image/requirements.txt deploy/image/build-requirements.txt deploy/image/
RUN python3 -m venv /opt/build \
    && /opt/build/bin/pip install --no-cache-dir --require-hashes -r deploy/image/build-requirements.txt \
    && python3 -m venv --system-site-packages --without-pip /opt/collector \
    && /opt/build/bin/pip --python /opt/collector/bin/python install --no-cache-dir --require-hashes --only-binary :all: \
        -r deploy/image/requirements.txt \
    && find /opt/collector -name '*.so*' -exec strip --strip-unneeded {} +
COPY . .
RUN /opt/build/bin/pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir dist . \
    && /opt/build/bin/pip --python /opt/collector/bin/python install --no-cache-dir --no-index --no-deps dist/*.whl \
    && find /opt/collector/lib/python3.11/site-packages/collector -name '*.so' -exec strip --strip-debug {} + \
    && deploy/image/trim python /opt/collector

# What runs: Python, bcc with LLVM, libseccomp, authorities to verify brokers by.
FROM ${BASE}
ARG VERSION=0
COPY --from=build /opt/stand-ins/*.deb /tmp/image/
COPY deploy/image/trim deploy/image/sbom.py /tmp/image/
RUN apt-get update \
    && apt-get install -y --no-install-recommends /tmp/image/*.deb ca-certificates python3 python3-bpfcc python3-seccomp \
    && sh /tmp/image/trim system \
    && find / -xdev -type f -perm -4000 -exec chmod u-s {} + \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/log/* /var/cache/debconf/*
COPY --from=build /opt/collector /opt/collector
# What the image consists of, for scanners. The places that are written to: with a read-only root, volumes or tmpfs.
RUN /opt/collector/bin/python /tmp/image/sbom.py --version "$VERSION" > /opt/collector/sbom.spdx.json \
    && rm -r /tmp/image \
    && install -d -m 0700 /run/collector /var/cache/ebpf-api-collector /var/spool/collector
ARG REVISION=unknown
LABEL org.opencontainers.image.title="ebpf-api-collector" \
    org.opencontainers.image.description="Sees the HTTP APIs of a Linux node with eBPF and delivers one JSON record per exchange" \
    org.opencontainers.image.licenses="Apache-2.0" \
    org.opencontainers.image.version="${VERSION}" \
    org.opencontainers.image.revision="${REVISION}" \
    org.opencontainers.image.base.name="docker.io/library/debian:bookworm-slim"
ENV PATH=/opt/collector/bin:$PATH PYTHONDONTWRITEBYTECODE=1
ENTRYPOINT ["collector"]
CMD ["run"]
