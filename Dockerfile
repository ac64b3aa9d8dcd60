# Two images from one build: `core` for orchestrator, API and jobs, `handlers` for workers.
#   docker build --target core -t REGISTRY/keshi/core:VERSION .
# Everything comes from locks with hashes. Give the base by digest to have the same bytes again.
ARG PYTHON_IMAGE=docker.io/library/python:3.11-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_NO_INPUT=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src

FROM build AS wheel
COPY helm/image/build.lock ./
RUN ["python", "-m", "pip", "install", "--require-hashes", "--only-binary=:all:", "--requirement=build.lock"]
COPY pyproject.toml README.md LICENSE ./
COPY src/ src/
COPY orchestrator/ orchestrator/
COPY handlers/ handlers/
COPY schemas/ schemas/
RUN ["python", "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir=/wheels", "."]

FROM build AS core-environment
RUN ["python", "-m", "venv", "--without-pip", "/opt/keshi"]
COPY helm/image/core.lock ./
RUN ["python", "-m", "pip", "--python=/opt/keshi", "install", "--require-hashes", "--only-binary=:all:", "--requirement=core.lock"]
COPY --from=wheel /wheels /wheels
RUN ["python", "-m", "pip", "--python=/opt/keshi", "install", "--no-index", "--no-deps", "--find-links=/wheels", "keshi"]

FROM build AS handlers-environment
RUN ["python", "-m", "venv", "--without-pip", "/opt/keshi"]
COPY helm/image/handlers.lock ./
RUN ["python", "-m", "pip", "--python=/opt/keshi", "install", "--require-hashes", "--only-binary=:all:", "--requirement=handlers.lock"]
COPY --from=wheel /wheels /wheels
RUN ["python", "-m", "pip", "--python=/opt/keshi", "install", "--no-index", "--no-deps", "--find-links=/wheels", "keshi"]

FROM ${PYTHON_IMAGE} AS runtime
LABEL org.opencontainers.image.title="keshi" \
      org.opencontainers.image.licenses="Apache-2.0"
# Nothing is written at run time: the root file system may be read-only.
ENV PATH=/opt/keshi/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
RUN ["useradd", "--system", "--user-group", "--uid=65532", "--no-create-home", "--home-dir=/nonexistent", "--shell=/usr/sbin/nologin", "keshi"]
WORKDIR /
USER 65532:65532
# It ends in order on SIGTERM, and starts no other process.
ENTRYPOINT ["keshi"]
CMD ["--help"]

FROM runtime AS handlers
COPY --from=handlers-environment /opt/keshi /opt/keshi

# The last one is what is built where no target is named.
FROM runtime AS core
COPY --from=core-environment /opt/keshi /opt/keshi
