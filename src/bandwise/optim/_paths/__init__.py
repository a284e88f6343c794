"""Fast paths through the optimizers' steps, and steps on parameters that many devices share.

Each path computes what the readable function of its optimizer computes. Tests compare the two.
"""
