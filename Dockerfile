# Tradewind in a container: every role is a command of the one image. Nothing in it runs as root.
FROM python:3.12-slim

ENV PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1

# Two users: gateways may read the router's public key, and must not be able to read its private one (mode 0600).
RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin tradewind \
 && useradd --uid 10002 --no-create-home --shell /usr/sbin/nologin gateway \
 && install -d -o tradewind -g tradewind /var/lib/tradewind \
 && install -d -o gateway -g gateway /var/lib/gateway

WORKDIR /src
# First what changes seldom: a layer of dependencies, each checked against its hash. There is one lock file, so that what
# runs is what was tested; the price is that tools for tests are in the image too.
COPY requirements.lock ./
RUN pip install --require-hashes -r requirements.lock

COPY pyproject.toml README.md LICENSE ./
COPY streams ./streams
COPY forecasting ./forecasting
COPY router_sync ./router_sync
COPY tradewind ./tradewind
COPY dashboards ./dashboards
# the build tools are in the lock file too: nothing is fetched unchecked
RUN pip install --no-deps --no-build-isolation .

# Faust makes a folder for tables where it stands, though there are none; /tmp is writable under a read-only root too
WORKDIR /tmp
USER tradewind
ENV TRADEWIND_STATE_DIR=/var/lib/tradewind
ENTRYPOINT ["tradewind"]
CMD ["--help"]
