"""Tasks of the SMI paper's evidence alone: a time series and a policy."""
