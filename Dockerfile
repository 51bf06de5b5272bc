# Build: a release binary without the simulators.
FROM rust:1.95-bookworm AS build
WORKDIR /build
COPY Cargo.toml Cargo.lock ./
COPY src ./src
COPY benches ./benches
COPY proxy.toml README.md ./
RUN cargo build --release --locked --no-default-features

# A folder that belongs to the user of the image: the state must be writable, and a fresh volume copies its owner.
RUN mkdir -m 0700 /state

# Run: no shell, no package manager, not root.
FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /build/target/release/countersign /usr/local/bin/countersign
COPY --from=build --chown=nonroot:nonroot /state /var/lib/countersign
USER nonroot
# Configuration at /etc/countersign/proxy.toml, secrets as files. Keep the volume: the nonce mark is in it.
VOLUME /var/lib/countersign
# The main listener, and those of `[[ports]]` where `proxy.toml` has them on 0.0.0.0.
EXPOSE 8443 8601 8602 8603
# Both `serve` and `healthcheck` read ./proxy.toml: mount it here.
WORKDIR /etc/countersign
ENV COUNTERSIGN__LISTEN__ADDRESS=0.0.0.0:8443 \
    COUNTERSIGN__STORE__PATH=/var/lib/countersign \
    COUNTERSIGN__LOG__FORMAT=json
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s \
    CMD ["/usr/local/bin/countersign", "healthcheck"]
ENTRYPOINT ["/usr/local/bin/countersign"]
CMD ["serve"]
