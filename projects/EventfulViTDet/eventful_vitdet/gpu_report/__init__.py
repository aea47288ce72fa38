"""Everything worth doing on a GPU in nine minutes: checks, times beside their goals, block sizes (tools/gpu_report.py).

It runs on a machine with PyTorch, Triton and numpy and nothing else: of this package, it imports only what these
suffice for. Rows that need Detectron2 and its requirements import them when they get there, or are skipped with the
reason.
"""
