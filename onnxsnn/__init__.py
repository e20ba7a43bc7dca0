"""Turn a trained ONNX network into a spiking neural network, as ONNX, and run it."""
