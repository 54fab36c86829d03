# syntax=docker/dockerfile:1
# Tradewind in a container: every role is a command of the one image. Nothing in it runs as root.
#
# No container engine was at hand when this was written: it has not been built. Its pip commands were tried on their own.
FROM python:3.12.12-slim-bookworm AS build

ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /src
# First what changes seldom: everything the lock file names, each file checked against its hash. There is one lock file,
# so that what runs is what was tested.
COPY requirements.lock ./
RUN pip download --require-hashes --dest /wheels -r requirements.lock \
 && pip install --no-index --find-links /wheels hatchling

COPY pyproject.toml README.md LICENSE ./
COPY streams ./streams
COPY forecasting ./forecasting
COPY router_sync ./router_sync
COPY tradewind ./tradewind
COPY dashboards ./dashboards
# From those files alone: what Tradewind needs at run time comes along, actuators of all kinds included; the tools of
# its tests do not.
RUN pip wheel --no-deps --no-build-isolation --wheel-dir /built . \
 && python -m venv /opt/tradewind \
 && for wheel in /built/*.whl; do \
      /opt/tradewind/bin/pip install --no-index --find-links /wheels "$wheel[aws,keda,kubernetes]"; \
    done

FROM python:3.12.12-slim-bookworm

# Two users: gateways may read the router's public key, and must not be able to read its private one (mode 0600).
RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin tradewind \
 && useradd --uid 10002 --no-create-home --shell /usr/sbin/nologin gateway \
 && install -d -o tradewind -g tradewind /var/lib/tradewind \
 && install -d -o gateway -g gateway /var/lib/gateway
COPY --from=build /opt/tradewind /opt/tradewind

ENV PATH=/opt/tradewind/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
ENV TRADEWIND_STATE_DIR=/var/lib/tradewind
# Where /healthz is asked for below: a worker's usual port. A gateway is given its own.
ENV HEALTH_PORT=9464

# Faust makes a folder for tables where it stands, though there are none; /tmp is writable under a read-only root too
WORKDIR /tmp
USER tradewind
EXPOSE 8080 9464
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s --retries=3 \
  CMD ["python", "-c", "import os, urllib.request as u; u.urlopen(f'http://127.0.0.1:{os.environ[\"HEALTH_PORT\"]}/healthz', timeout=2)"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["tradewind"]
CMD ["--help"]
