#!/bin/sh
# Generates the Python code of every proto below OUTPUT, and puts the protos beside it, so that the
# wheel carries them: others import our method option.
# Usage: PYTHON=... protos/generate.sh OUTPUT
set -eu
output=$(cd "$1" && pwd)
cd "$(dirname "$0")"
"${PYTHON:-python3}" -m grpc_tools.protoc -I . \
  --python_out="$output" --pyi_out="$output" --grpc_python_out="$output" grpc_identity/v1/*.proto
cp grpc_identity/v1/*.proto "$output/grpc_identity/v1/"
# protoc writes a service stub for files without services too; what is empty is not kept.
for stub in "$output"/grpc_identity/v1/*_pb2_grpc.py; do
  grep -q '^class ' "$stub" || rm "$stub"
done
