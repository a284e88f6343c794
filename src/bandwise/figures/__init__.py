"""What every figure shares, whoever draws it: looks, curves with bands, words. Needs plotly."""
