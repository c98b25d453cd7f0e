"""Execution environments that launchers start and that speak the Runtime API: processes."""
