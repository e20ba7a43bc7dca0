"""Running an SNN over timesteps."""

from onnxsnn.runtime.runner import BACKENDS, Result, Runner

__all__ = ["BACKENDS", "Result", "Runner"]
