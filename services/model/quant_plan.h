#ifndef SERVICES_MODEL_QUANT_PLAN_H_
#define SERVICES_MODEL_QUANT_PLAN_H_

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "kernels/quant/grid.h"
#include "services/model/gemma_config.h"
#include "services/model/name_pattern.h"

namespace onegrid::model {

// One line of a plan: the tensors whose GGUF name fits the pattern get the
// grid.
struct QuantRule {
  NamePattern pattern;
  const quant::Grid* grid;
  // Why, for the reader of ToText: written above the rule, not read back.
  std::string comment = {};
};

// Which grid each matrix of a model is put on: the linears by the first rule
// that matches, else the default grid. The matrices of no layer are matched by
// their full names only and without such a rule int8_g32: the token embedding,
// "token_embd.weight", which is the output head too unless that is a matrix of
// its own, "output.weight"; in Gemma 4 the table of each layer's own input,
// "per_layer_token_embd.weight", and its projection,
// "per_layer_model_proj.weight".
//
// As text it is a small YAML file:
//   default: int4_g32
//   rules:
//     - tensors: "blk.{9-17}.ffn_*.weight"
//       grid: int2_g64
// Immutable, so thread-safe.
class QuantPlan {
 public:
  QuantPlan(const quant::Grid& default_grid, std::vector<QuantRule> rules)
      : default_(&default_grid), rules_(std::move(rules)) {}

  // InvalidArgument (INVALID_QUANT_PLAN; metadata line, and rule counted from
  // 1): not YAML, no default, an unknown key or grid, a bad pattern.
  static absl::StatusOr<QuantPlan> Parse(absl::string_view text);

  // "int4": every linear int4_g32, the embedding int8_g32.
  // "mobile_e2b": after the mobile checkpoint of Gemma 4 E2B, of which it
  // follows the widths by layer: attention 4 bits, MLP 4 bits in the first 3/7
  // of the layers (15 of 35) and 2 bits in the rest. It does not follow the
  // 2-bit embedding in Gemma 3 (here int4_g32), the one scale per output row
  // (here one per group) nor the static activation scales. InvalidArgument
  // (INVALID_QUANT_PLAN): another name; the message lists them.
  static absl::StatusOr<QuantPlan> Preset(absl::string_view name,
                                          const GemmaConfig& config);

  // The file, with comments that say how to edit it; Parse gives the same plan.
  std::string ToText() const;

  // InvalidArgument (INVALID_QUANT_PLAN): not the GGUF name of a linear or of
  // a table.
  absl::StatusOr<const quant::Grid*> GridFor(
      absl::string_view gguf_tensor_name) const;

  const quant::Grid& default_grid() const { return *default_; }
  const std::vector<QuantRule>& rules() const { return rules_; }

 private:
  const quant::Grid* default_;
  std::vector<QuantRule> rules_;
};

// InvalidArgument (INVALID_QUANT_PLAN): the inputs of a tensor are not a
// multiple of its grid's group (metadata tensor), or a rule matches no tensor
// of the model (metadata rule).
absl::Status CheckPlan(const QuantPlan& plan, const GemmaConfig& config);

// Bytes of all matrices in a GGUF file of the plan, linears and tables
// (once); norms and metadata are not counted. The plan must pass CheckPlan.
int64_t PlanBytes(const QuantPlan& plan, const GemmaConfig& config);

// Bytes of one matrix [rows, cols] on the grid in a GGUF file. cols must be a
// multiple of the group.
int64_t GridBytes(const quant::Grid& grid, int64_t rows, int64_t cols);

}  // namespace onegrid::model

#endif  // SERVICES_MODEL_QUANT_PLAN_H_
