"""The main job, played step by step against a running service."""
