# syntax=docker/dockerfile:1
FROM python:3.13.9-slim-trixie AS build

ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
# With keys in an HSM, Transit or a cloud: --build-arg LOCK=providers.txt
ARG LOCK=server.txt
WORKDIR /build
RUN python -m venv /opt/identity
COPY requirements/server.txt requirements/providers.txt requirements/dev.txt requirements/
# Everything but the project itself comes locked, with hashes, as wheels.
RUN /opt/identity/bin/python -m pip install --require-hashes --only-binary :all: -r "requirements/$LOCK" \
    && python -m venv /opt/tools \
    && /opt/tools/bin/python -m pip install --require-hashes --only-binary :all: -r requirements/dev.txt
COPY pyproject.toml README.md LICENSE CHANGELOG.md ./
COPY interceptors interceptors
COPY identity identity
RUN /opt/tools/bin/python -m build --wheel --no-isolation --outdir /wheels interceptors \
    && /opt/tools/bin/python -m build --wheel --no-isolation --outdir /wheels . \
    && /opt/identity/bin/python -m pip install --no-deps /wheels/*.whl

FROM python:3.13.9-slim-trixie

LABEL org.opencontainers.image.title="grpc-identity" org.opencontainers.image.licenses="Apache-2.0"
RUN groupadd --system --gid 10001 identity \
    && useradd --system --uid 10001 --gid identity --home-dir /var/lib/identity --create-home identity
COPY --from=build /opt/identity /opt/identity
ENV PATH=/opt/identity/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER 10001:10001
WORKDIR /var/lib/identity
EXPOSE 50051 8080
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s --retries=3 \
  CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8080/readyz', timeout=2)"]
ENTRYPOINT ["identity"]
CMD ["serve"]
