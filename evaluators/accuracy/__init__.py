"""Accuracy by training: an Ultralytics training cut into rungs, each paused with a checkpoint and continued later."""
