"""Necks: what stands between the backbone and all task parts, one to a file."""
