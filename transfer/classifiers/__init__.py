"""Heads that begin as combinations of a pretrained classifier's classes, by similarity (Pascal 2021, appendix A)."""
