"""What the kernels are given: the structures of kernels.h and frame.cpp, where their fields are explained."""

import ctypes

VOID, INT, LONG, FLOAT = ctypes.c_void_p, ctypes.c_int32, ctypes.c_int64, ctypes.c_float


class Problem(ctypes.Structure):
    _fields_ = [
        ("q", VOID),
        ("k", VOID),
        ("v", VOID),
        ("q_stride", LONG),
        ("kv_stride", LONG),
        ("padding", VOID),
        ("row_table", VOID),
        ("column_table", VOID),
        ("heads", INT),
        ("channels", INT),
        ("rows", INT),
        ("columns", INT),
        ("key_rows", INT),
        ("key_columns", INT),
        ("scale", FLOAT),
        ("threads", INT),
    ]


class Sums(ctypes.Structure):
    _fields_ = [("sums", VOID), ("normalisers", VOID), ("references", VOID), ("drift", VOID)]


class Change(ctypes.Structure):
    _fields_ = [("renew", VOID), ("keys", VOID), ("old", VOID), ("count", LONG)]


class Limits(ctypes.Structure):
    _fields_ = [("score", FLOAT), ("drift", FLOAT), ("rounding", FLOAT)]


class Product(ctypes.Structure):
    _fields_ = [
        ("rows", VOID),
        ("count", LONG),
        ("inputs", INT),
        ("outputs", INT),
        ("weights", VOID),
        ("bias", VOID),
        ("gelu", INT),
        ("out", VOID),
        ("threads", INT),
    ]


class Windows(ctypes.Structure):
    _fields_ = [("of_token", VOID), ("members", VOID), ("count", LONG), ("tokens", LONG)]


class Norm(ctypes.Structure):
    _fields_ = [("weight", VOID), ("bias", VOID), ("eps", FLOAT)]


class Tokens(ctypes.Structure):
    _fields_ = [
        ("x", VOID),
        ("reference", VOID),
        ("streams", LONG),
        ("tokens", LONG),
        ("channels", INT),
        ("norm", Norm),
        ("threads", INT),
    ]


class Gate(ctypes.Structure):
    _fields_ = [("reference", VOID), ("norm", Norm)]


class Layer(ctypes.Structure):
    _fields_ = [("weights", VOID), ("packed", VOID), ("bias", VOID)]


class Block(ctypes.Structure):
    _fields_ = [
        ("qkv_gate", Gate),
        ("projection_gate", Gate),
        ("mlp_gate", Gate),
        ("qkv", Layer),
        ("projection", Layer),
        ("fc1", Layer),
        ("fc2", Layer),
        ("qkv_buffer", VOID),
        ("projection_buffer", VOID),
        ("mlp_buffer", VOID),
        ("attention", Problem),
        ("windows", Windows),
        ("window_output", VOID),
        ("sums", Sums),
    ]


class Frame(ctypes.Structure):
    _fields_ = [
        ("blocks", VOID),
        ("depth", LONG),
        ("streams", LONG),
        ("tokens", LONG),
        ("selected", LONG),
        ("channels", INT),
        ("hidden", INT),
        ("recompute_all", INT),
        ("threads", INT),
        ("limits", Limits),
        ("x", VOID),
        ("norms", VOID),
        ("index", VOID),
        ("executed", VOID),
    ]
