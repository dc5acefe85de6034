# multidiff serve in a container. docs/serve.md has the arguments; docker/verify.sh runs the same
# steps without Docker.
ARG PYTHON=3.11
FROM python:${PYTHON}-slim AS build
# Build of torch, as uv names it: cpu, cu130, ...; empty for that of the default package index.
ARG TORCH_BACKEND=cpu
ARG EXTRAS=serve,tts
# Anything keeps what training, data sets and metrics need.
ARG TRAINING=
RUN pip install --no-cache-dir "uv>=0.9"
COPY . /source
RUN sh /source/docker/install.sh /source /opt/multidiff

FROM python:${PYTHON}-slim
RUN useradd --create-home --uid 10001 multidiff
COPY --from=build /opt/multidiff /opt/multidiff
ENV PATH=/opt/multidiff/bin:$PATH HF_HUB_OFFLINE=1 PYTHONUNBUFFERED=1
USER multidiff
WORKDIR /home/multidiff
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s \
    CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8000/health', timeout=4)"]
# Others reach a container's address, so it needs a token: docker run -e MULTIDIFF_TOKEN=...
ENTRYPOINT ["multidiff", "serve", "--host", "0.0.0.0", "--page"]
CMD ["digits", "kathleen", "edits", "masked", "restaurant"]
