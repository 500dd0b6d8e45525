# The page on a server of your own:
#   docker build -t stvit-studio .                          for CPUs
#   docker build -t stvit-studio --build-arg TORCH=cu130 .  for NVIDIA GPUs (docker run --gpus all)
#   docker run --read-only --tmpfs /tmp -v stvit:/data -p 7860:7860 stvit-studio
# Weights, graphs and nothing else are kept in /data.
FROM python:3.12-slim-bookworm

ARG TORCH=cpu
WORKDIR /app
COPY pre-requirements.txt requirements.txt ./
RUN pip install --no-cache-dir --extra-index-url https://download.pytorch.org/whl/${TORCH} \
        -r pre-requirements.txt -r requirements.txt \
    && useradd --uid 1000 --create-home studio \
    && mkdir /data && chown studio /data
COPY . .

USER 1000
ENV GRADIO_SERVER_NAME=0.0.0.0 \
    HF_HOME=/data/huggingface \
    STVIT_CACHE=/data/graphs \
    MPLCONFIGDIR=/tmp/matplotlib \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
VOLUME /data
EXPOSE 7860
HEALTHCHECK --interval=30s --timeout=5s --start-period=120s --retries=3 \
    CMD ["python", "-c", "import http.client as h; c = h.HTTPConnection('127.0.0.1', 7860, timeout=4); c.request('GET', '/health'); exit(c.getresponse().status != 200)"]
CMD ["python", "app.py"]
