# An image for every node of a cluster: docker build --tag REGISTRY/mammoflow:VERSION .
# Its torch brings CUDA; the machine brings the driver.
FROM python:3.11-slim-bookworm

# Ray's raylets use procps to name a process that grows too large.
RUN apt-get update && apt-get install --yes --no-install-recommends procps && rm -rf /var/lib/apt/lists/*

RUN useradd --create-home --uid 1000 ray
WORKDIR /home/ray/mammoflow
COPY --chown=ray pyproject.toml constraints.txt README.md LICENSE ./
COPY --chown=ray mammoflow mammoflow
COPY --chown=ray jobs jobs
RUN pip install --no-cache-dir --constraint constraints.txt --editable '.[aws]' && chown -R ray /home/ray/mammoflow

USER ray
ENV RAY_USAGE_STATS_ENABLED=0 MLFLOW_DISABLE_TELEMETRY=true
# A node that vanishes without a word is given up after half a minute, as in cluster.yaml.
ENV RAY_health_check_failure_threshold=3 RAY_grpc_client_keepalive_timeout_ms=30000
