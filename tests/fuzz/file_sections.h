// Where the sections of a good file begin, found without the readers.
#ifndef TESTS_FUZZ_FILE_SECTIONS_H_
#define TESTS_FUZZ_FILE_SECTIONS_H_

#include <cstddef>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace onegrid::fuzz {

// A place at which a file may be cut: the section before it is whole.
struct Boundary {
  std::string after;  // "metadata general.architecture", "tensor table", ...
  size_t at = 0;      // bytes of the file before it
};

// Each in rising order from 0 on, without the end of the file. CHECK-fails on
// files that their writers do not write.
//
// GGUF: magic, version, both counts; of each metadata entry its key, type and
// value; of each tensor its entry; the padding; each tensor's data.
std::vector<Boundary> GgufBoundaries(absl::string_view file);
// safetensors: length, header, each tensor's data.
std::vector<Boundary> SafetensorsBoundaries(absl::string_view file);
// A protobuf message: each field.
std::vector<Boundary> ProtoBoundaries(absl::string_view file);

}  // namespace onegrid::fuzz

#endif  // TESTS_FUZZ_FILE_SECTIONS_H_
