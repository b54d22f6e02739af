"""What a frozen backbone knows: protocols, the labelled images they need, and the features they read.

Source: Vandenhende (2022), sections 7.3 to 7.6. A protocol is a file in :mod:`pretrain.evaluation.protocols`, a set of
labelled images one in :mod:`pretrain.evaluation.data`.
"""
