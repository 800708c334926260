#!/bin/sh
# Run by the image of PostgreSQL when its data folder is made: the gateway's
# database and its owner, who may make roles but is no superuser (see "roles and
# rights" in docs/operations.md). `gateway migrate` does the rest as that owner.
# OWNER_PASSWORD: the owner's. psql finds the server by the image's settings.
set -eu
psql -q -v ON_ERROR_STOP=1 -v password="${OWNER_PASSWORD:?}" --username postgres --dbname postgres <<'SQL'
CREATE ROLE bulkhead_owner LOGIN CREATEROLE PASSWORD :'password';
CREATE DATABASE bulkhead OWNER bulkhead_owner;
REVOKE CONNECT ON DATABASE bulkhead FROM PUBLIC;
SQL
