"""What a call costs, as a ratio to a bare ``grpc.aio`` echo in the same run."""
