#!/bin/sh
# Start the tracking server: MLflow over PostgreSQL and an object store, with users and passwords.
#
#   TRACKING_DATABASE=postgresql+psycopg2://mlflow:...@db.example.org/mlflow TRACKING_ARTIFACTS=s3://bucket/mlflow \
#   TRACKING_ADMIN_PASSWORD=... TRACKING_SECRET_KEY=... sh deploy/tracking/start.sh
#
# It needs `pip install -c constraints.txt mlflow psycopg2-binary flask-wtf boto3`, and listens on loopback alone unless
# TRACKING_HOST says otherwise: put a proxy with TLS before it. Artifacts go through it, so that its users need no key of
# the store. Users are made with MLflow's own API (docs/tracking.md); a new user may read, and write what is his.
set -eu
: "${TRACKING_DATABASE:?is a URL such as postgresql+psycopg2://mlflow:PASSWORD@db.example.org/mlflow}"
: "${TRACKING_ARTIFACTS:?is a URL such as s3://bucket/mlflow}"
: "${TRACKING_ADMIN_PASSWORD:?has 12 characters or more}"
: "${TRACKING_SECRET_KEY:?is a random text that stays the same, such as openssl rand -hex 32 gives}"
umask 077
home=$(mktemp -d)
trap 'rm -rf "$home"' EXIT
cat > "$home/auth.ini" <<INI
[mlflow]
default_permission = READ
database_uri = $TRACKING_DATABASE
admin_username = ${TRACKING_ADMIN:-admin}
admin_password = $TRACKING_ADMIN_PASSWORD
authorization_function = mlflow.server.auth:authenticate_request_basic_auth
INI
export MLFLOW_AUTH_CONFIG_PATH="$home/auth.ini" MLFLOW_FLASK_SERVER_SECRET_KEY="$TRACKING_SECRET_KEY"
export MLFLOW_BACKEND_STORE_URI="$TRACKING_DATABASE" MLFLOW_ARTIFACTS_DESTINATION="$TRACKING_ARTIFACTS"
python -m mlflow server --app-name basic-auth \
    --host "${TRACKING_HOST:-127.0.0.1}" --port "${TRACKING_PORT:-5000}" --workers "${TRACKING_WORKERS:-2}" &
server=$!
trap 'kill "$server"; wait "$server" || true; rm -rf "$home"' EXIT INT TERM
wait "$server"
