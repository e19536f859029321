# A stand-in for the official image of Prometheus, from Debian's package: the same program, entry point and user.
FROM debian:bookworm-slim
RUN apt-get update && apt-get install -y --no-install-recommends prometheus && rm -rf /var/lib/apt/lists/*
USER nobody
ENTRYPOINT ["prometheus"]
