"""The MQTT door."""

from edge_agent.doors.mqtt.door import MqttDoor, Node

__all__ = ["MqttDoor", "Node"]
