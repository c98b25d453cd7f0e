"""Tells queues, topics, functions, event buses and buckets of events that have ended."""
