"""The frontend: ends gRPC and REST, finds the route, forwards bytes, owns its requests in flight. No TensorFlow."""
