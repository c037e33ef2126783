"""Writes a tiny model in three GGUF shards with Python's gguf.

Run: python3 services/model/testdata/make_shards.py services/model/testdata
"""

import pathlib
import sys

import gguf
import numpy as np


def main():
  out = pathlib.Path(sys.argv[1]) / 'python.gguf'
  writer = gguf.GGUFWriter(None, 'gemma3', split_max_tensors=2)
  writer.add_string('general.name', 'shards')
  for i in range(5):
    writer.add_tensor(f't{i}', np.full((i + 1, 3), i, dtype=np.float32))
  writer.write_header_to_file(path=out)
  writer.write_kv_data_to_file()
  writer.write_tensors_to_file()
  writer.close()


if __name__ == '__main__':
  main()
