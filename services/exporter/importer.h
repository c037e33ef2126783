// Puts a checkpoint on a quantization grid: any GGUF of a supported
// architecture becomes the canonical on-grid GGUF that training starts from
// and inference can serve.
//
// Written types: linear layers Q4_0 with the positive, dual-exact scales of
// the int4_g32 grid, but the projection of Gemma 4's layer inputs on int8_g32;
// the tables looked up by token Q8_0 (verbatim if the source has Q8_0); norms
// F32. Metadata, tokenizer included, is kept. Large matrices are encoded part
// by part while the file is written.
#ifndef SERVICES_EXPORTER_IMPORTER_H_
#define SERVICES_EXPORTER_IMPORTER_H_

#include <cstdint>
#include <functional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "proto/onegrid/v1/base_model.pb.h"

namespace onegrid::exporter {

// Called with a stage's name and the units (tensors) done and in all. A
// non-OK status stops the work and is returned by it.
using ProgressFn = std::function<absl::Status(absl::string_view stage,
                                              int64_t done, int64_t total)>;

struct ImportOptions {
  // Threads of the scale search, at least 1.
  int threads = 1;
  ProgressFn progress;
  // Of a Hugging Face folder: the GGUF file that has its tokenizer, if the
  // folder has none that can be read.
  std::string tokenizer_from = {};
};

// Reads the GGUF `source` and writes the on-grid GGUF `out` atomically: on
// any error `out` is as it was before.
//
// A group whose values already lie on the grid keeps its codes and scale and
// is counted in groups_kept. Float weights go through quant::RecoverMatrix,
// which see; a warning is logged if some lie on no lattice.
//
// Errors: those of model::GgufFile::Open and model::ConfigFromGguf
// (CORRUPT_FILE, UNSUPPORTED_ARCHITECTURE, UNSUPPORTED_TENSOR_TYPE);
// INVALID_ARGUMENT (UNSUPPORTED_TENSOR) for a tensor the architecture does
// not have or a value that is not finite; those of writing, DISK_FULL among
// them.
absl::StatusOr<v1::ImportReport> ImportGguf(const std::string& source,
                                            const std::string& out,
                                            const ImportOptions& options);

}  // namespace onegrid::exporter

#endif  // SERVICES_EXPORTER_IMPORTER_H_
