# The Postgres module in the official image: docker build --build-arg PG_MAJOR=18 -t tinydancer .
# Then: docker run -e POSTGRES_PASSWORD=... tinydancer, and CREATE EXTENSION tinydancer.
# Built from the checkout with the same make goals that a packager uses; no Python inside.

ARG PG_MAJOR=18

FROM postgres:${PG_MAJOR} AS build
ARG PG_MAJOR
RUN apt-get update \
    && apt-get install -y --no-install-recommends gcc libc6-dev make \
        postgresql-server-dev-${PG_MAJOR} \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
RUN make -j"$(nproc)" && make install DESTDIR=/out

FROM postgres:${PG_MAJOR}
COPY --from=build /out /
COPY LICENSE NOTICE /usr/share/doc/tinydancer/
