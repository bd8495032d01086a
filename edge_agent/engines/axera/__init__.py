"""AXERA accelerators: the vendor's console program as an engine. docs/decisions/0010 says how and why."""

from edge_agent.engines.axera.engine import AxeraEngine

__all__ = ["AxeraEngine"]
