#include "services/finetuner/grid_checkpoint.h"

#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/quant/ggml_types.h"
#include "kernels/quant/q4_0.h"
#include "services/common/error_info.h"

namespace onegrid::finetuner {
namespace {

using model::GgufFile;
using quant::GgmlType;

absl::StatusOr<const GgufFile::Tensor*> FindTyped(const GgufFile& file,
                                                  const std::string& name,
                                                  GgmlType type) {
  const GgufFile::Tensor* tensor = file.Find(name);
  if (tensor == nullptr) {
    return common::MakeError(
        absl::StatusCode::kInvalidArgument, "NOT_ON_GRID",
        absl::StrCat(file.path(), ": tensor ", name, " is missing"),
        {{"tensor", name}});
  }
  if (tensor->type != type) {
    ASSIGN_OR_RETURN(const quant::GgmlTypeTraits expected,
                     quant::TraitsOf(type));
    ASSIGN_OR_RETURN(const quant::GgmlTypeTraits found,
                     quant::TraitsOf(tensor->type));
    return common::MakeError(
        absl::StatusCode::kInvalidArgument, "NOT_ON_GRID",
        absl::StrCat(file.path(), ": tensor ", name, " is ", found.name,
                     ", expected ", expected.name),
        {{"tensor", name}, {"expected", expected.name}, {"found", found.name}});
  }
  return tensor;
}

}  // namespace

absl::StatusOr<GridCheckpoint> LoadGridCheckpoint(const GgufFile& file) {
  GridCheckpoint checkpoint;
  ASSIGN_OR_RETURN(checkpoint.config, model::ConfigFromGguf(file));
  checkpoint.specs = model::Gemma3Linears(checkpoint.config);
  for (const model::LinearSpec& spec : checkpoint.specs) {
    ASSIGN_OR_RETURN(const GgufFile::Tensor* tensor,
                     FindTyped(file, spec.gguf_name, GgmlType::kQ4_0));
    ASSIGN_OR_RETURN(quant::GridMatrix matrix,
                     quant::UnpackQ4_0(tensor->data, spec.out, spec.in));
    checkpoint.linears.push_back(std::move(matrix));
  }
  ASSIGN_OR_RETURN(const GgufFile::Tensor* embedding,
                   FindTyped(file, model::kGgufEmbedding, GgmlType::kQ8_0));
  ASSIGN_OR_RETURN(
      checkpoint.embedding,
      quant::UnpackQ8_0(embedding->data, checkpoint.config.vocab_size,
                        checkpoint.config.hidden));
  for (const model::NormSpec& spec : model::Gemma3Norms(checkpoint.config)) {
    ASSIGN_OR_RETURN(const GgufFile::Tensor* tensor,
                     FindTyped(file, spec.gguf_name, GgmlType::kF32));
    std::vector<float> weight(static_cast<size_t>(spec.size));
    std::memcpy(weight.data(), tensor->data.data(),
                weight.size() * sizeof(float));
    checkpoint.norms.push_back(std::move(weight));
  }
  return checkpoint;
}

GroupSpan LinearsOf(LinearGroup group) {
  switch (group) {
    case LinearGroup::kQkv:
      return {0, 3};
    case LinearGroup::kOutput:
      return {3, 4};
    case LinearGroup::kGateUp:
      return {4, 6};
    case LinearGroup::kDown:
      return {6, 7};
  }
  return {};
}

}  // namespace onegrid::finetuner
