"""Drawings of networks, made from what they compute: ``python -m mtl_heads.drawing``."""
