// A Gemma 3 checkpoint on its grid, as plain arrays: what training starts from
// and what the fold changes. Free of LibTorch.
#ifndef SERVICES_FINETUNER_GRID_CHECKPOINT_H_
#define SERVICES_FINETUNER_GRID_CHECKPOINT_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/quant/grid.h"
#include "services/model/gemma_config.h"
#include "services/model/gguf_reader.h"
#include "services/model/tensor_names.h"

namespace onegrid::finetuner {

// The codes and scales of a model. Linears are in the order of GemmaLinears,
// seven to a layer; norms in the order of GemmaNorms, GGUF values (they
// multiply plainly).
struct GridCheckpoint {
  model::GemmaConfig config;
  std::vector<model::LinearSpec> specs;
  std::vector<quant::GridMatrix> linears;  // Parallel to specs.
  quant::GridMatrix embedding;             // [vocab, hidden], also the head.
  std::vector<std::vector<float>> norms;
};

// Reads a grid GGUF: linears and embedding Q4_0, Q2_0 or Q8_0, each on the grid
// of its type; norms F32.
// InvalidArgument: NOT_ON_GRID (tensor, expected, found) if a tensor is missing
// or has another type, CORRUPT_FILE (tensor) if it has a code that its grid has
// not or a scale that is not finite. Otherwise the errors of
// model::ConfigFromGguf and CheckTrainable.
absl::StatusOr<GridCheckpoint> LoadGridCheckpoint(const model::GgufFile& file);

// Unimplemented (UNSUPPORTED_ARCHITECTURE): a model that is read and served but
// that training has no forward pass for.
absl::Status CheckTrainable(const model::GemmaConfig& config);

// Linears that read the same input, computed as one product.
enum class LinearGroup { kQkv = 0, kOutput = 1, kGateUp = 2, kDown = 3 };
inline constexpr int kGroupsPerLayer = 4;
inline constexpr int kLinearsPerLayer = 7;

// Positions, within a layer, of the group's first linear and of its end.
struct GroupSpan {
  int begin = 0;
  int end = 0;
};
GroupSpan LinearsOf(LinearGroup group);

}  // namespace onegrid::finetuner

#endif  // SERVICES_FINETUNER_GRID_CHECKPOINT_H_
