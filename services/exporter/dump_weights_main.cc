// Prints "name sha256" of each tensor of a GGUF, decoded to f32 by this
// project's decoder: the bytes hashed are the row-major little-endian values.
// Parity tests compare the lines with those of other readers.
#include <cstdio>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "services/common/files.h"
#include "services/model/gguf_reader.h"
#include "services/model/tensor_ops.h"

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: dump_weights FILE.gguf\n");
    return 2;
  }
  const auto file = onegrid::model::GgufFile::Open(argv[1]);
  if (!file.ok()) {
    std::fprintf(stderr, "dump_weights: %s\n",
                 std::string(file.status().message()).c_str());
    return 1;
  }
  for (const auto& tensor : (*file)->tensors()) {
    const auto values = onegrid::model::DequantizeTensor(tensor);
    if (!values.ok()) {
      std::fprintf(stderr, "dump_weights: %s: %s\n", tensor.name.c_str(),
                   std::string(values.status().message()).c_str());
      return 1;
    }
    const absl::string_view bytes(reinterpret_cast<const char*>(values->data()),
                                  values->size() * sizeof(float));
    std::printf("%s %s\n", tensor.name.c_str(),
                onegrid::common::Sha256Of(bytes).c_str());
  }
  return 0;
}
