# The agent as an image. Debian 12, because bcc exists only for the distribution's own Python.
FROM debian:12-slim AS build
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev zlib1g-dev python3-dev python3-venv \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
RUN python3 -m venv --system-site-packages /opt/collector \
    && /opt/collector/bin/pip install --no-cache-dir 'setuptools>=77' wheel 'Cython>=3.1' \
    && /opt/collector/bin/pip install --no-cache-dir --no-build-isolation .

FROM debian:12-slim
RUN apt-get update && apt-get install -y --no-install-recommends python3 python3-bpfcc python3-seccomp \
    && rm -rf /var/lib/apt/lists/*
COPY --from=build /opt/collector /opt/collector
ENV PATH=/opt/collector/bin:$PATH PYTHONDONTWRITEBYTECODE=1
ENTRYPOINT ["collector"]
CMD ["run"]
