"""The worker: one process per (model, version, device, replica). The only component that imports TensorFlow."""
