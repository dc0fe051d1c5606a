# The image of fabkeep: one static program, the certificates of public authorities, no shell, a user without rights.
# For several architectures: docker buildx build --platform linux/amd64,linux/arm64 -t REGISTRY/fabkeep:VERSION --push .
FROM rust:1-alpine AS build
RUN apk add --no-cache build-base ca-certificates cmake linux-headers perl
WORKDIR /source
COPY . .
RUN cargo build --profile dist --locked && install -D target/dist/fabkeep /image/usr/local/bin/fabkeep \
    && install -D -m 644 /etc/ssl/certs/ca-certificates.crt /image/etc/ssl/certs/ca-certificates.crt \
    && install -d -m 1777 /image/tmp

FROM scratch
COPY --from=build /image /
ENV HOME=/tmp
USER 65532:65532
ENTRYPOINT ["/usr/local/bin/fabkeep"]
