"""The optimizers' steps in kernels that compute every value where they read it: compiled by
``torch.compile`` for a CPU, written in Triton for a GPU."""
