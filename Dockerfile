# One image, the two production binaries; the sandbox is not in it.
FROM rust:1.95.0-slim-bookworm AS build
WORKDIR /src
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/src/target \
    cargo build --release --locked --package api --package worker \
    && install -D target/release/api target/release/worker --target-directory /out

FROM debian:bookworm-slim
# Mozilla's roots are in the binaries. The system's are trusted as well by calls to Stripe and the
# trace collector, and verify a Postgres with a public certificate.
RUN apt-get update && apt-get install --yes --no-install-recommends ca-certificates curl && rm -rf /var/lib/apt/lists/*
COPY --from=build /out/ /usr/local/bin/
USER nobody
EXPOSE 3000
CMD ["api"]
