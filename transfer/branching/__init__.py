"""Branched networks by task affinity (Vandenhende 2022, chapter 4): measure, search, draw."""
