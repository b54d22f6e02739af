"""Gradients of several losses at once: their inner products, and their combination, in little time and memory.

The parts, from the inside out: :mod:`transfer.gradients.pullback` takes the gradients of all tasks down
through the encoder in one walk; :mod:`transfer.gradients.products` holds them; :mod:`transfer.gradients.engine`
makes a step's direction of them; :mod:`transfer.gradients.objective` is what schedules see.
"""
