"""The guarantee: dataset.json, the commit log, staging, publication, runs and their heartbeats. No Ray, no torch."""
