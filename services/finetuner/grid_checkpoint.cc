#include "services/finetuner/grid_checkpoint.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/quant/ggml_types.h"
#include "kernels/quant/grid_blocks.h"
#include "services/common/error_info.h"

namespace onegrid::finetuner {
namespace {

using model::GgufFile;
using quant::GgmlType;

absl::StatusOr<const GgufFile::Tensor*> Find(const GgufFile& file,
                                             const std::string& name) {
  const GgufFile::Tensor* tensor = file.Find(name);
  if (tensor != nullptr) return tensor;
  return common::MakeError(
      absl::StatusCode::kInvalidArgument, "NOT_ON_GRID",
      absl::StrCat(file.path(), ": tensor ", name, " is missing"),
      {{"tensor", name}});
}

absl::Status NotOnGrid(const GgufFile& file, const GgufFile::Tensor& tensor,
                       const std::string& expected) {
  ASSIGN_OR_RETURN(const quant::GgmlTypeTraits found,
                   quant::TraitsOf(tensor.type));
  return common::MakeError(
      absl::StatusCode::kInvalidArgument, "NOT_ON_GRID",
      absl::StrCat(file.path(), ": tensor ", tensor.name, " is ", found.name,
                   ", expected ", expected),
      {{"tensor", tensor.name}, {"expected", expected}, {"found", found.name}});
}

absl::StatusOr<quant::GridMatrix> LoadMatrix(const GgufFile& file,
                                             const std::string& name) {
  ASSIGN_OR_RETURN(const GgufFile::Tensor* tensor, Find(file, name));
  if (!quant::GridOfBlocks(tensor->type).ok()) {
    return NotOnGrid(file, *tensor, "Q4_0, Q2_0 or Q8_0");
  }
  auto matrix = quant::UnpackBlocks(tensor->type, tensor->data, tensor->rows(),
                                    tensor->cols());
  const absl::Status status =
      matrix.ok() ? quant::ValidateMatrix(*matrix) : matrix.status();
  if (status.ok()) return matrix;
  return common::MakeError(
      absl::StatusCode::kInvalidArgument, "CORRUPT_FILE",
      absl::StrCat(file.path(), ": tensor ", name, ": ", status.message()),
      {{"tensor", name}});
}

}  // namespace

int64_t LinearNamed(absl::Span<const model::LinearSpec> specs,
                    absl::string_view gguf_name) {
  const auto found = std::find_if(specs.begin(), specs.end(),
                                  [&](const model::LinearSpec& spec) {
                                    return spec.gguf_name == gguf_name;
                                  });
  return found - specs.begin();
}

absl::StatusOr<GridCheckpoint> LoadGridCheckpoint(const GgufFile& file) {
  GridCheckpoint checkpoint;
  ASSIGN_OR_RETURN(checkpoint.config, model::ConfigFromGguf(file));
  checkpoint.specs = model::GemmaLinears(checkpoint.config);
  for (const model::LinearSpec& spec : checkpoint.specs) {
    ASSIGN_OR_RETURN(quant::GridMatrix matrix,
                     LoadMatrix(file, spec.gguf_name));
    checkpoint.linears.push_back(std::move(matrix));
  }
  ASSIGN_OR_RETURN(checkpoint.embedding,
                   LoadMatrix(file, model::kGgufEmbedding));
  if (checkpoint.config.per_layer_width > 0) {
    ASSIGN_OR_RETURN(quant::GridMatrix matrix,
                     LoadMatrix(file, model::kGgufPerLayerEmbedding));
    checkpoint.per_layer_embedding =
        std::make_shared<const quant::GridMatrix>(std::move(matrix));
  }
  for (const model::NormSpec& spec : model::GemmaNorms(checkpoint.config)) {
    ASSIGN_OR_RETURN(const GgufFile::Tensor* tensor,
                     Find(file, spec.gguf_name));
    if (tensor->type != GgmlType::kF32) return NotOnGrid(file, *tensor, "F32");
    std::vector<float> weight(tensor->data.size() / sizeof(float));
    std::memcpy(weight.data(), tensor->data.data(),
                weight.size() * sizeof(float));
    checkpoint.norms.push_back(std::move(weight));
  }
  return checkpoint;
}

namespace {

// The group of a linear; none for the experts' and that of no layer.
std::optional<LinearGroup> GroupOf(const model::LinearSpec& spec) {
  static const auto* groups = new std::map<std::string, LinearGroup>{
      {"q_proj", LinearGroup::kQkv},
      {"k_proj", LinearGroup::kQkv},
      {"v_proj", LinearGroup::kQkv},
      {"o_proj", LinearGroup::kOutput},
      {"gate_proj", LinearGroup::kGateUp},
      {"up_proj", LinearGroup::kGateUp},
      {"down_proj", LinearGroup::kDown},
      {"per_layer_input_gate", LinearGroup::kInputGate},
      {"per_layer_projection", LinearGroup::kInputOut}};
  const auto found = groups->find(spec.kind);
  if (spec.layer < 0 || spec.experts > 1 || found == groups->end()) {
    return std::nullopt;
  }
  return found->second;
}

}  // namespace

LinearLayout::LinearLayout(absl::Span<const model::LinearSpec> specs) {
  for (size_t i = 0; i < specs.size(); ++i) {
    const std::optional<LinearGroup> group = GroupOf(specs[i]);
    if (!group.has_value()) continue;
    const auto layer = static_cast<size_t>(specs[i].layer);
    if (spans_.size() <= layer * kGroupsPerLayer) {
      spans_.resize((layer + 1) * kGroupsPerLayer);
    }
    GroupSpan& span =
        spans_[layer * kGroupsPerLayer + static_cast<size_t>(*group)];
    const auto linear = static_cast<int64_t>(i);
    if (span.end == 0) span.begin = linear;
    span.end = linear + 1;
  }
}

bool LinearLayout::InGroup(int64_t linear) const {
  return std::any_of(spans_.begin(), spans_.end(), [&](const GroupSpan& span) {
    return span.begin <= linear && linear < span.end;
  });
}

NormLayout::NormLayout(const model::GemmaConfig& config) {
  // In the order of LayerNorm.
  static constexpr const char* kNames[kNormsPerLayer] = {
      "attn_norm.weight",      "attn_q_norm.weight",
      "attn_k_norm.weight",    "post_attention_norm.weight",
      "ffn_norm.weight",       "post_ffw_norm.weight",
      "post_norm.weight",      "post_ffw_norm_1.weight",
      "pre_ffw_norm_2.weight", "post_ffw_norm_2.weight",
      "ffn_gate_inp.weight",   "ffn_gate_inp.scale",
      "ffn_down_exps.scale",   "layer_output_scale.weight"};
  std::map<std::string, int64_t> places;
  for (const model::NormSpec& spec : model::GemmaNorms(config)) {
    places.emplace(spec.gguf_name, static_cast<int64_t>(places.size()));
  }
  const auto place = [&](const std::string& name) {
    const auto found = places.find(name);
    return found == places.end() ? int64_t{-1} : found->second;
  };
  for (int64_t layer = 0; layer < config.layer_count(); ++layer) {
    for (const char* name : kNames) {
      places_.push_back(place(absl::StrCat("blk.", layer, ".", name)));
    }
  }
  per_layer_input_ = place("per_layer_proj_norm.weight");
}

}  // namespace onegrid::finetuner
