"""A whole home on this machine: broker, agent and Home Assistant as processes, for `script/develop` and the tests."""
