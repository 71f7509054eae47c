# The last stage is the image of production: `api` and `worker`. The stage `demo` is the fake Stripe.

FROM rust:1.95.0-slim-bookworm AS build
WORKDIR /src
COPY . .
# Cargo compares file times, and an earlier build in the cache may be newer than these sources:
# without `touch` its programs would count as built.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target,id=quick-checkout-tracker,sharing=locked \
    find . -path ./target -prune -o -type f -exec touch {} + \
    && cargo build --release --locked --package api --package worker \
    && install -D target/release/api target/release/worker --target-directory /out

FROM build AS build-demo
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target,id=quick-checkout-tracker,sharing=locked \
    find . -path ./target -prune -o -type f -exec touch {} + \
    && cargo build --release --locked --package sandbox \
    && install -D target/release/sandbox --target-directory /demo

FROM debian:bookworm-slim AS system
# Mozilla's roots are in the binaries. The system's are trusted as well by calls to Stripe and the
# trace collector, and verify a Postgres with a public certificate.
RUN apt-get update && apt-get install --yes --no-install-recommends ca-certificates curl && rm -rf /var/lib/apt/lists/*
# nobody, as a number: Kubernetes' `runAsNonRoot` accepts no name.
USER 65534:65534

FROM system AS demo
WORKDIR /data
COPY --from=build-demo /demo/ /usr/local/bin/
EXPOSE 12111
CMD ["sandbox", "stripe"]

FROM system
COPY --from=build /out/ /usr/local/bin/
EXPOSE 3000
CMD ["api"]
