"""Trained systems for other runtimes: ONNX files, and PyTorch's exported programs."""
