#include "services/finetuner/grid_checkpoint.h"

#include <cstring>
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

absl::Status CheckTrainable(const model::GemmaConfig& config) {
  if (config.family == model::GemmaFamily::kGemma3) return absl::OkStatus();
  const std::string found = model::ArchitectureName(config.family);
  return common::MakeError(absl::StatusCode::kUnimplemented,
                           "UNSUPPORTED_ARCHITECTURE",
                           absl::StrCat("training takes gemma3, found ", found),
                           {{"found", found}, {"supported", "gemma3"}});
}

absl::StatusOr<GridCheckpoint> LoadGridCheckpoint(const GgufFile& file) {
  GridCheckpoint checkpoint;
  ASSIGN_OR_RETURN(checkpoint.config, model::ConfigFromGguf(file));
  RETURN_IF_ERROR(CheckTrainable(checkpoint.config));
  checkpoint.specs = model::GemmaLinears(checkpoint.config);
  for (const model::LinearSpec& spec : checkpoint.specs) {
    ASSIGN_OR_RETURN(quant::GridMatrix matrix,
                     LoadMatrix(file, spec.gguf_name));
    checkpoint.linears.push_back(std::move(matrix));
  }
  ASSIGN_OR_RETURN(checkpoint.embedding,
                   LoadMatrix(file, model::kGgufEmbedding));
  for (const model::NormSpec& spec : model::GemmaNorms(checkpoint.config)) {
    ASSIGN_OR_RETURN(const GgufFile::Tensor* tensor,
                     Find(file, spec.gguf_name));
    if (tensor->type != GgmlType::kF32) return NotOnGrid(file, *tensor, "F32");
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
