"""C++ kernels for CPUs. Whatever they do, PyTorch operations can do too, and do where there is no compiler."""
