# The orders service and the console, as one image: what runs is chosen by the command (see compose.yaml).
# Two stages, so that neither the installer nor the development tools are in what runs.

FROM python:3.13-slim AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 UV_LINK_MODE=copy UV_COMPILE_BYTECODE=1 UV_PYTHON_DOWNLOADS=never
RUN pip install --no-cache-dir uv==0.13.9
WORKDIR /build
RUN python -m venv /opt/relance
COPY pyproject.toml requirements.lock ./
# First everything that is locked, its hashes checked; then what only the developers need is taken out again.
# The second list names no version of its own: the lock constrains it, so it can only keep or remove.
RUN uv pip sync --python /opt/relance --require-hashes requirements.lock \
 && sed 's/^\( *\)--hash=.*//; s/ *\\$//' requirements.lock > versions.txt \
 && uv pip compile --quiet --python /opt/relance --extra orders --extra console --constraint versions.txt \
      --output-file runtime.txt pyproject.toml
COPY README.md LICENSE ./
COPY src src
RUN uv build --quiet --wheel --no-build-isolation --python /opt/relance --out-dir dist . \
 && uv pip sync --python /opt/relance runtime.txt \
 && uv pip install --python /opt/relance --no-deps dist/*.whl

FROM python:3.13-slim
RUN useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin relance
COPY --from=build /opt/relance /opt/relance
# All addresses of the container; which of the machine's addresses lead there is said where it is published.
ENV SERVER_HOST=0.0.0.0 SERVER_INSECURE_BIND=true SERVER_PORT=18082
ENV PATH=/opt/relance/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER relance
WORKDIR /tmp
EXPOSE 18082
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=5s --timeout=4s --start-period=20s --retries=6 \
  CMD ["python", "-c", "import os, urllib.request as web; web.urlopen('http://127.0.0.1:' + os.environ['SERVER_PORT'] + '/health', timeout=3)"]
CMD ["python", "-m", "orders"]
