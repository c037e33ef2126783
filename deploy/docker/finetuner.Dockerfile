# The finetuner service alone, as user 65532, with the libraries it links.
ARG BUILDER=onegrid-builder
FROM ${BUILDER} AS builder

FROM debian:bookworm-slim
RUN apt-get update \
 && apt-get install -y --no-install-recommends \
      libabsl20220623 \
      libgrpc++1.51 \
      libgrpc29 \
      libprotobuf32 \
      libssl3 \
      libyaml-cpp0.7 \
 && rm -rf /var/lib/apt/lists/*
# LibTorch, where the loader looks by itself.
COPY --from=builder /out/lib/ /usr/local/lib/
RUN ldconfig
COPY --from=builder /out/finetuner /usr/local/bin/finetuner
USER 65532:65532
ENTRYPOINT ["/usr/local/bin/finetuner"]
