"""The control plane: sources, manager, version policies, worker processes, routes. Never imports TensorFlow."""
