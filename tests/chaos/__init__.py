"""Kills and freezes at named points, and an oracle that shares no code with what it judges."""
