"""OpenVINO GenAI: CPUs and Intel GPUs, from a GGUF file or an OpenVINO model folder."""

from edge_agent.engines.openvino.engine import OpenVinoEngine

__all__ = ["OpenVinoEngine"]
