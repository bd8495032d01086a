"""Both copies of the wire, the component's loaded from its file as Home Assistant has it: without the agent."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from edge_agent import wire

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def component_wire() -> ModuleType:
    spec = importlib.util.spec_from_file_location("component_wire", ROOT / "custom_components/edge_agent/wire.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(params=["agent", "component"])
def twin(request: pytest.FixtureRequest) -> ModuleType:
    return wire if request.param == "agent" else request.getfixturevalue("component_wire")
