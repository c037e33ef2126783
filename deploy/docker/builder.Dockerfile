# Builds every service; the images of the services copy their binary from here.
# Build it from the root of the tree: deploy/docker/build does all images.
FROM debian:bookworm

ENV ONEGRID_CACHE=/cache HOME=/root
RUN apt-get update

# Dependencies first: they change less often than the code.
COPY deploy/dev /src/deploy/dev
COPY deploy/onednn /src/deploy/onednn
COPY deploy/xgrammar /src/deploy/xgrammar
RUN /src/deploy/dev/setup --build-only

COPY . /src
WORKDIR /src
RUN bazel build --disk_cache= \
      //services/controller //services/evaluator //services/exporter \
      //services/finetuner //services/gateway //services/inference \
 && mkdir -p /out/lib \
 && for service in controller evaluator exporter finetuner gateway inference; do \
      strip -o /out/$service bazel-bin/services/$service/$service || exit 1; \
    done \
 && cp /cache/torch-2.13.0/lib/libtorch_cpu.so \
      /cache/torch-2.13.0/lib/libc10.so /cache/torch-2.13.0/lib/libgomp.so.1 \
      /out/lib/
