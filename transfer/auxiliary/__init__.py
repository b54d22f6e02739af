"""Auxiliary classes that a second network makes up: the pieces of schedule ``maxl``."""
