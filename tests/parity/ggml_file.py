"""Reads a GGUF with ggml itself: its file reader and its decoders.

Python's gguf 0.19 does not know Q2_0, and stops at a file that has it.
"""

import ctypes
import glob
import os

import numpy as np

# ggml.h, enum ggml_type.
F32, Q4_0, Q8_0, Q2_0 = 0, 2, 8, 42
DECODERS = {
    Q4_0: "dequantize_row_q4_0",
    Q8_0: "dequantize_row_q8_0",
    Q2_0: "dequantize_row_q2_0",
}


class _InitParams(ctypes.Structure):
    _fields_ = [("no_alloc", ctypes.c_bool), ("ctx", ctypes.c_void_p)]


def library(node):
    """ggml of the node-llama-cpp below `node`."""
    bins = os.path.join(node, "node_modules/@node-llama-cpp/linux-x64/bins")
    return glob.glob(os.path.join(bins, "*", "libggml-base*.so"))[0]


class GgmlFile:
    """name -> type and name -> values float32 of a file."""

    def __init__(self, library_path, path):
        ggml = ctypes.CDLL(library_path)
        ggml.gguf_init_from_file.restype = ctypes.c_void_p
        ggml.gguf_init_from_file.argtypes = [ctypes.c_char_p, _InitParams]
        ggml.gguf_get_n_tensors.restype = ctypes.c_int64
        ggml.gguf_get_n_tensors.argtypes = [ctypes.c_void_p]
        for name, result in (
            ("name", ctypes.c_char_p), ("type", ctypes.c_int),
            ("offset", ctypes.c_size_t), ("size", ctypes.c_size_t),
        ):
            function = getattr(ggml, "gguf_get_tensor_" + name)
            function.restype = result
            function.argtypes = [ctypes.c_void_p, ctypes.c_int64]
        ggml.gguf_get_data_offset.restype = ctypes.c_size_t
        ggml.gguf_get_data_offset.argtypes = [ctypes.c_void_p]
        ggml.gguf_find_key.restype = ctypes.c_int64
        ggml.gguf_find_key.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
        ggml.gguf_get_val_u32.restype = ctypes.c_uint32
        ggml.gguf_get_val_u32.argtypes = [ctypes.c_void_p, ctypes.c_int64]
        file = ggml.gguf_init_from_file(
            path.encode(), _InitParams(no_alloc=True, ctx=None))
        if not file:
            raise RuntimeError(f"ggml does not read {path}")
        self._ggml = ggml
        start = ggml.gguf_get_data_offset(file)
        self.types, self._places = {}, {}
        for i in range(ggml.gguf_get_n_tensors(file)):
            name = ggml.gguf_get_tensor_name(file, i).decode()
            self.types[name] = ggml.gguf_get_tensor_type(file, i)
            self._places[name] = (
                start + ggml.gguf_get_tensor_offset(file, i),
                ggml.gguf_get_tensor_size(file, i))
        key = ggml.gguf_find_key(file, b"general.file_type")
        self.file_type = ggml.gguf_get_val_u32(file, key)
        self._bytes = np.memmap(path, np.uint8, "r")

    def blocks(self, name):
        """The bytes of a tensor."""
        offset, size = self._places[name]
        return np.ascontiguousarray(self._bytes[offset:offset + size])

    def values(self, name, count):
        """The `count` values of a tensor, flat."""
        data = self.blocks(name)
        kind = self.types[name]
        if kind == F32:
            return data.view(np.float32)
        values = np.empty(count, np.float32)
        getattr(self._ggml, DECODERS[kind])(
            ctypes.c_void_p(data.ctypes.data),
            ctypes.c_void_p(values.ctypes.data), ctypes.c_int64(count))
        return values
