"""Writes a GGUF with the same weights in F32, so that peers compute in float."""

import gguf
import numpy as np

FILE_TYPE_F32 = 0


def write_float_gguf(source, target, replaced=None):
    """`replaced`: name -> values that take the place of the source's."""
    reader = gguf.GGUFReader(source)
    writer = gguf.GGUFWriter(target, reader.get_field("general.architecture").contents())
    for field in reader.fields.values():
        name, kind = field.name, field.types[0]
        if name.startswith("GGUF.") or name == "general.architecture":
            continue
        if name == "general.file_type":
            writer.add_file_type(FILE_TYPE_F32)
        elif kind == gguf.GGUFValueType.ARRAY:
            writer.add_key_value(name, field.contents(), kind,
                                 sub_type=field.types[-1])
        else:
            writer.add_key_value(name, field.contents(), kind)
    for tensor in reader.tensors:
        values = (replaced or {}).get(tensor.name)
        if values is None:
            values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        writer.add_tensor(tensor.name, np.ascontiguousarray(values, "<f4"))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
