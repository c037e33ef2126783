// A Gemma checkpoint on its grid, as plain arrays: what training starts from
// and what the fold changes. Free of LibTorch.
#ifndef SERVICES_FINETUNER_GRID_CHECKPOINT_H_
#define SERVICES_FINETUNER_GRID_CHECKPOINT_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "kernels/quant/grid.h"
#include "services/model/gemma_config.h"
#include "services/model/gguf_reader.h"
#include "services/model/tensor_names.h"

namespace onegrid::finetuner {

// The codes and scales of a model. Linears are in the order of GemmaLinears;
// norms in the order of GemmaNorms, GGUF values (they multiply plainly).
struct GridCheckpoint {
  model::GemmaConfig config;
  std::vector<model::LinearSpec> specs;
  std::vector<quant::GridMatrix> linears;  // Parallel to specs.
  quant::GridMatrix embedding;  // [vocab, hidden], also the head if tied.
  // [vocab, layers * width], each layer's own input; null if none. Shared, as
  // it is larger than all else.
  std::shared_ptr<const quant::GridMatrix> per_layer_embedding;
  std::vector<std::vector<float>> norms;
};

// The index of the linear of this GGUF name, one of no layer; it must be there.
int64_t LinearNamed(absl::Span<const model::LinearSpec> specs,
                    absl::string_view gguf_name);

// Reads a grid GGUF: linears and embedding Q4_0, Q2_0 or Q8_0, each on the grid
// of its type; norms F32.
// InvalidArgument: NOT_ON_GRID (tensor, expected, found) if a tensor is missing
// or has another type, CORRUPT_FILE (tensor) if it has a code that its grid has
// not or a scale that is not finite. Otherwise the errors of
// model::ConfigFromGguf.
absl::StatusOr<GridCheckpoint> LoadGridCheckpoint(const model::GgufFile& file);

// Linears of a layer that read the same input, computed as one product.
enum class LinearGroup {
  kQkv = 0,
  kOutput = 1,
  kGateUp = 2,
  kDown = 3,
  kInputGate = 4,  // of the layer's own input
  kInputOut = 5,
};
inline constexpr int kGroupsPerLayer = 6;

// Linears [begin, end), as indices in GridCheckpoint::specs.
struct GroupSpan {
  int64_t begin = 0;
  int64_t end = 0;
};

// Where the groups of each layer lie among the linears. The experts' linears,
// and that of no layer, are in none: they are not trained.
class LinearLayout {
 public:
  explicit LinearLayout(absl::Span<const model::LinearSpec> specs);

  // Empty if the layer has none.
  GroupSpan Of(int64_t layer, LinearGroup group) const {
    return spans_[static_cast<size_t>(layer * kGroupsPerLayer) +
                  static_cast<size_t>(group)];
  }
  int64_t layers() const {
    return static_cast<int64_t>(spans_.size()) / kGroupsPerLayer;
  }
  // False for the linears of no group.
  bool InGroup(int64_t linear) const;

 private:
  std::vector<GroupSpan> spans_;  // [layers, kGroupsPerLayer]
};

// A layer's tensors that are kept in f32.
enum class LayerNorm {
  kAttentionInput,
  kQuery,
  kKey,
  kAttentionOutput,
  kMlpInput,
  kMlpOutput,
  kInputOutput,  // after the layer's own input
  kDenseOutput,  // after the MLP beside experts
  kExpertsInput,
  kExpertsOutput,
  kRouter,  // [experts, hidden]
  kRouterScale,
  kExpertScale,
  kOutputScale,  // of the whole layer, one number
};
inline constexpr int kNormsPerLayer = 14;

// Where they lie among GemmaNorms.
class NormLayout {
 public:
  explicit NormLayout(const model::GemmaConfig& config);

  // -1: the layer has none.
  int64_t Of(int64_t layer, LayerNorm norm) const {
    return places_[static_cast<size_t>(layer * kNormsPerLayer) +
                   static_cast<size_t>(norm)];
  }
  // The norm of all layers' own inputs before they are used; -1: none.
  int64_t per_layer_input() const { return per_layer_input_; }

 private:
  std::vector<int64_t> places_;  // [layers, kNormsPerLayer]
  int64_t per_layer_input_ = -1;
};

}  // namespace onegrid::finetuner

#endif  // SERVICES_FINETUNER_GRID_CHECKPOINT_H_
