"""Synthetic people with known causes: a world to measure, and, apart, the truth about it.

Shares no code with the models, so that a model cannot be right by construction.
"""
