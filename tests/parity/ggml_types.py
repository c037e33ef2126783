"""Random but valid blocks of GGUF's types, and ggml's decoders for them."""

import ctypes
import struct

import numpy as np

# name: (id, elements, bytes, places of its f16 numbers)
TYPES = {
    "F32": (0, 1, 4, []),
    "F16": (1, 1, 2, [0]),
    "BF16": (30, 1, 2, []),
    "Q2_0": (42, 64, 18, [0]),
    "Q4_0": (2, 32, 18, [0]),
    "Q4_1": (3, 32, 20, [0, 2]),
    "Q5_0": (6, 32, 22, [0]),
    "Q5_1": (7, 32, 24, [0, 2]),
    "Q8_0": (8, 32, 34, [0]),
    "Q2_K": (10, 256, 84, [80, 82]),
    "Q3_K": (11, 256, 110, [108]),
    "Q4_K": (12, 256, 144, [0, 2]),
    "Q5_K": (13, 256, 176, [0, 2]),
    "Q6_K": (14, 256, 210, [208]),
    "IQ4_NL": (20, 32, 18, [0]),
    "IQ4_XS": (23, 256, 136, [0]),
    "TQ1_0": (34, 256, 54, [52]),
    "TQ2_0": (35, 256, 66, [64]),
    "MXFP4": (39, 32, 17, []),
}


def _finite_f16(random, shape):
    """Any f16 but infinities and NaNs: subnormal, zero, negative."""
    bits = random.integers(0, 0x7C00, shape, np.uint16)
    return bits | (random.integers(0, 2, shape, np.uint16) << 15)


def random_blocks(name, rows, blocks, random):
    """Bytes [rows, blocks * bytes of a block]."""
    _, _, size, halves = TYPES[name]
    data = random.integers(0, 256, (rows, blocks, size), np.uint8)
    for place in halves:
        half = _finite_f16(random, (rows, blocks, 1))
        data[:, :, place:place + 2] = half.view(np.uint8)
    if name == "MXFP4":
        # Exponents whose products f32 has.
        data[:, :, 0] = random.integers(0, 251, (rows, blocks), np.uint8)
    if name in ("F32", "BF16"):
        # No infinity, no NaN: the largest exponent loses a bit.
        data[:, :, -1] &= 0xBF
    return data.reshape(rows, -1)


def write_by_hand(path, tensors):
    """A GGUF of (name, type name, bytes [rows, n]) for readers that know types
    which Python's gguf does not."""
    def text(value):
        return struct.pack("<Q", len(value)) + value.encode()

    head = struct.pack("<4sIQQ", b"GGUF", 3, len(tensors), 2)
    head += text("general.architecture") + struct.pack("<I", 8) + text("none")
    head += text("general.file_type") + struct.pack("<II", 4, 0)
    body = b""
    for name, kind, data in tensors:
        number, elements, size, _ = TYPES[kind]
        rows, width = data.shape
        head += text(name) + struct.pack(
            "<IQQIQ", 2, width // size * elements, rows, number, len(body))
        body += data.tobytes()
        body += b"\0" * (-len(body) % 32)
    with open(path, "wb") as file:
        file.write(head + b"\0" * (-len(head) % 32) + body)


class _Traits(ctypes.Structure):
    """ggml.h, struct ggml_type_traits."""

    _fields_ = [
        ("type_name", ctypes.c_char_p),
        ("blck_size", ctypes.c_int64),
        ("blck_size_interleave", ctypes.c_int64),
        ("type_size", ctypes.c_size_t),
        ("is_quantized", ctypes.c_bool),
        ("to_float", ctypes.CFUNCTYPE(
            None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)),
    ]


def ggml_values(library_path, name, data):
    """float32 of the blocks by ggml, or None if it does not know the type."""
    number, elements, size, _ = TYPES[name]
    if name == "F32":
        return data.reshape(-1).view(np.float32)
    ggml = ctypes.CDLL(library_path)
    ggml.ggml_get_type_traits.restype = ctypes.POINTER(_Traits)
    traits = ggml.ggml_get_type_traits(ctypes.c_int(number)).contents
    if (traits.type_name or b"").lower() != name.lower().encode():
        return None
    assert (traits.blck_size, traits.type_size) == (elements, size), name
    data = np.ascontiguousarray(data)
    values = np.empty(data.size // size * elements, np.float32)
    traits.to_float(data.ctypes.data, values.ctypes.data, values.size)
    return values
