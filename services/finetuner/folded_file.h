// The file of a tuned or quantized model, which exports start from.
//
// Safetensors, metadata format = "onegrid.folded.v1": per matrix with GGUF name
// N, N.codes I8 [out, in] and N.scales F32 [out, in / group]; norms that
// replace the base's, F32 under their GGUF names; metadata `grids`, a JSON
// object that names the grid of every N that is not on int4_g32.
#ifndef SERVICES_FINETUNER_FOLDED_FILE_H_
#define SERVICES_FINETUNER_FOLDED_FILE_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "kernels/quant/grid.h"

namespace onegrid::finetuner {

// Not owned.
struct NamedMatrix {
  std::string name;
  const quant::GridMatrix* matrix = nullptr;
};
struct NamedNorm {
  std::string name;
  const std::vector<float>* values = nullptr;
};

// Writes the file atomically. Errors of model::SafetensorsWriter.
absl::Status WriteFolded(absl::Span<const NamedMatrix> matrices,
                         absl::Span<const NamedNorm> norms,
                         const std::string& path);

}  // namespace onegrid::finetuner

#endif  // SERVICES_FINETUNER_FOLDED_FILE_H_
