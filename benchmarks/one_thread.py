"""Import this before NumPy: OpenMP, OpenBLAS and MKL then have one thread, in this process and in those it starts."""

import os

os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
