"""Everything worth doing on a GPU in nine minutes: checks, times beside their goals, block sizes (tools/gpu_report.py).

A package beside `eventful_vit`, so that it runs on a machine with PyTorch, Triton and numpy only. What needs
`eventful_vitdet`, with Detectron2's requirements, imports it when it gets there, or is skipped with the reason.
"""
