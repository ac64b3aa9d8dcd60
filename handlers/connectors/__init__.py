"""Helpers for handlers: how to talk to an SQL database or a REST API within the time of a task."""
