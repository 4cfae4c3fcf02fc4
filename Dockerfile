# Both planes and the command line in one small image; the command says which one runs.
FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/src/target \
    cargo build --release --locked -p mcpgw -p mcpgw-controlplane -p mcpgw-dataplane \
    && install -D -t /out target/release/mcpgw target/release/mcpgw-controlplane target/release/mcpgw-dataplane

FROM debian:bookworm-slim
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --home-dir /var/lib/mcpgw --create-home mcpgw
COPY --from=build /out/ /usr/local/bin/
COPY configs/ /etc/mcpgw/
USER mcpgw
VOLUME /var/lib/mcpgw
CMD ["mcpgw", "--help"]
