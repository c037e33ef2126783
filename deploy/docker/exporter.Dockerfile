# The exporter service alone, as user 65532, with the libraries it links.
ARG BUILDER=onegrid-builder
FROM ${BUILDER} AS builder

FROM debian:bookworm-slim
RUN apt-get update \
 && apt-get install -y --no-install-recommends \
      libabsl20220623 \
      libgrpc++1.51 \
      libgrpc29 \
      libprotobuf32 \
      libre2-9 \
      libssl3 \
 && rm -rf /var/lib/apt/lists/*
COPY --from=builder /out/exporter /usr/local/bin/exporter
USER 65532:65532
ENTRYPOINT ["/usr/local/bin/exporter"]
