"""The vocabulary that all rooms share: values, dimension names, units and the error tree.

Nothing here reads a file, fits a model or draws a plot, and nothing here imports another room.
"""
