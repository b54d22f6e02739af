"""Heads: from the features to one task's prediction, one to a file."""
