# A static binary and nothing else; it runs as an ordinary user.
FROM golang:1.26 AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG VERSION=dev
RUN CGO_ENABLED=0 go build -trimpath -ldflags "-s -w -X main.version=${VERSION}" -o /gateway ./cmd/gateway \
 && mkdir -p /empty/data

FROM scratch
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY --from=build --chown=65532:65532 /empty/data /data
COPY --from=build /gateway /gateway
USER 65532:65532
ENV BULKHEAD_DATA=/data BULKHEAD_LISTEN=0.0.0.0:8080 BULKHEAD_OPS_LISTEN=127.0.0.1:8081
VOLUME /data
EXPOSE 8080
ENTRYPOINT ["/gateway"]
CMD ["serve"]
