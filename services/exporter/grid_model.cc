#include "services/exporter/grid_model.h"

#include <algorithm>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "kernels/quant/ggml_types.h"
#include "kernels/quant/q4_0.h"
#include "services/common/error_info.h"

namespace onegrid::exporter {
namespace {

using model::GgufFile;
using model::LinearSpec;
using model::SafetensorsFile;
using quant::GgmlType;

absl::Status NotOnGrid(const GgufFile& file, absl::string_view tensor,
                       absl::string_view expected) {
  return common::MakeError(
      absl::StatusCode::kFailedPrecondition, "NOT_ON_GRID",
      absl::StrCat(file.path(), ": tensor ", tensor, " is not ", expected,
                   "; import the checkpoint first"),
      {{"tensor", std::string(tensor)}});
}

absl::Status CorruptFolded(absl::string_view path, absl::string_view tensor,
                           absl::string_view what) {
  return common::MakeError(absl::StatusCode::kInvalidArgument, "CORRUPT_FILE",
                           absl::StrCat(path, ": tensor ", tensor, " ", what),
                           {{"tensor", std::string(tensor)}});
}

absl::Status CheckEntry(const SafetensorsFile& file, const std::string& path,
                        const std::string& name, const std::string& dtype,
                        const std::vector<int64_t>& shape) {
  const auto* tensor = file.Find(name);
  if (tensor == nullptr) return CorruptFolded(path, name, "is missing");
  if (tensor->dtype != dtype || tensor->shape != shape) {
    return CorruptFolded(
        path, name,
        absl::StrCat("should be ", dtype, " [", shape[0], ", ", shape[1], "]"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<GridModel>> GridModel::Open(
    const std::string& base_path, const std::string& folded_path) {
  auto grid = std::unique_ptr<GridModel>(new GridModel);
  ASSIGN_OR_RETURN(grid->base_, GgufFile::Open(base_path));
  ASSIGN_OR_RETURN(grid->config_, model::ConfigFromGguf(*grid->base_));
  grid->linears_ = model::Gemma3Linears(grid->config_);
  RETURN_IF_ERROR(grid->CheckBase());
  if (!folded_path.empty()) {
    grid->folded_path_ = folded_path;
    ASSIGN_OR_RETURN(grid->folded_, SafetensorsFile::Open(folded_path));
    RETURN_IF_ERROR(grid->CheckFolded());
  }
  return grid;
}

// ConfigFromGguf has checked that every tensor is there with its shape.
absl::Status GridModel::CheckBase() {
  for (const LinearSpec& spec : linears_) {
    if (base_->Find(spec.gguf_name)->type != GgmlType::kQ4_0) {
      return NotOnGrid(*base_, spec.gguf_name, "Q4_0");
    }
  }
  for (const model::NormSpec& spec : model::Gemma3Norms(config_)) {
    const GgufFile::Tensor* tensor = base_->Find(spec.gguf_name);
    if (tensor->type != GgmlType::kF32) {
      return NotOnGrid(*base_, spec.gguf_name, "F32");
    }
    norms_.push_back({spec, tensor});
  }
  embedding_ = base_->Find(model::kGgufEmbedding);
  if (embedding_->type != GgmlType::kQ8_0) {
    return NotOnGrid(*base_, embedding_->name, "Q8_0");
  }
  if (base_->tensors().size() != linears_.size() + norms_.size() + 1) {
    return NotOnGrid(*base_, "table", "that of an imported base model");
  }
  return absl::OkStatus();
}

absl::Status GridModel::CheckFolded() {
  for (const LinearSpec& spec : linears_) {
    RETURN_IF_ERROR(CheckEntry(*folded_, folded_path_,
                               absl::StrCat(spec.gguf_name, ".codes"), "I8",
                               {spec.out, spec.in}));
    RETURN_IF_ERROR(CheckEntry(*folded_, folded_path_,
                               absl::StrCat(spec.gguf_name, ".scales"), "F32",
                               {spec.out, spec.in / quant::kGroup}));
  }
  for (const std::string& name : folded_->names()) {
    const size_t dot = name.rfind('.');
    if (dot == std::string::npos ||
        FindLinear(name.substr(0, dot)) == nullptr) {
      return CorruptFolded(folded_path_, name,
                           "does not belong to a linear layer of the base");
    }
  }
  return absl::OkStatus();
}

const LinearSpec* GridModel::FindLinear(const std::string& gguf_name) const {
  const auto found = std::find_if(
      linears_.begin(), linears_.end(),
      [&](const LinearSpec& spec) { return spec.gguf_name == gguf_name; });
  return found == linears_.end() ? nullptr : &*found;
}

absl::StatusOr<quant::GridMatrix> GridModel::FoldedLinear(
    const LinearSpec& spec) const {
  const auto* codes = folded_->Find(absl::StrCat(spec.gguf_name, ".codes"));
  const auto* scales = folded_->Find(absl::StrCat(spec.gguf_name, ".scales"));
  quant::GridMatrix matrix{spec.out, spec.in, {}, {}};
  matrix.codes.resize(codes->data.size());
  std::memcpy(matrix.codes.data(), codes->data.data(), codes->data.size());
  matrix.scales.resize(scales->data.size() / sizeof(float));
  std::memcpy(matrix.scales.data(), scales->data.data(), scales->data.size());
  return matrix;
}

absl::StatusOr<quant::GridMatrix> GridModel::Linear(
    const LinearSpec& spec) const {
  quant::GridMatrix matrix;
  if (folded_ != nullptr) {
    ASSIGN_OR_RETURN(matrix, FoldedLinear(spec));
  } else {
    ASSIGN_OR_RETURN(
        matrix, quant::UnpackQ4_0(base_->Find(spec.gguf_name)->data, spec.out,
                                  spec.in));
  }
  const std::string& path = folded_ != nullptr ? folded_path_ : base_->path();
  if (const absl::Status status = quant::ValidateMatrix(matrix); !status.ok()) {
    return CorruptFolded(path, spec.gguf_name, status.message());
  }
  for (size_t g = 0; g < matrix.scales.size(); ++g) {
    if (quant::IsDualExact(matrix.scales[g])) continue;
    return CorruptFolded(
        path, spec.gguf_name,
        absl::StrCat("has a scale that is not dual-exact, ", "at group ", g));
  }
  return matrix;
}

}  // namespace onegrid::exporter
