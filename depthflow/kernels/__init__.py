"""Arrays in, arrays out: the numerical kernels, in NumPy and Numba, which import nothing else of depthflow."""
