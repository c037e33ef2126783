#include "services/exporter/grid_model.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "kernels/base/float_types.h"
#include "kernels/quant/ggml_types.h"
#include "kernels/quant/grid_blocks.h"
#include "services/common/error_info.h"

namespace onegrid::exporter {
namespace {

using model::GgufFile;
using model::LinearSpec;
using quant::GgmlType;

absl::Status NotOnGrid(const GgufFile& file, absl::string_view tensor,
                       absl::string_view expected) {
  return common::MakeError(
      absl::StatusCode::kFailedPrecondition, "NOT_ON_GRID",
      absl::StrCat(file.path(), ": tensor ", tensor, " is not ", expected,
                   "; import the checkpoint first"),
      {{"tensor", std::string(tensor)}});
}

absl::Status Corrupt(absl::string_view path, absl::string_view tensor,
                     absl::string_view what) {
  return common::MakeError(absl::StatusCode::kInvalidArgument, "CORRUPT_FILE",
                           absl::StrCat(path, ": tensor ", tensor, " ", what),
                           {{"tensor", std::string(tensor)}});
}

absl::Status CheckMatrixType(const GgufFile& file, const std::string& name) {
  if (quant::GridOfBlocks(file.Find(name)->type).ok()) return absl::OkStatus();
  return NotOnGrid(file, name, "Q4_0, Q2_0 or Q8_0");
}

bool IsF16(float x) {
  return std::isfinite(x) && kernels::F16ToFloat(kernels::FloatToF16(x)) == x;
}

}  // namespace

std::vector<float> GridNorm::Values() const {
  std::vector<float> values(data.size() / sizeof(float));
  std::memcpy(values.data(), data.data(), data.size());
  return values;
}

std::vector<float> DequantizeRows(const quant::GridMatrix& matrix,
                                  int64_t begin, int64_t end) {
  std::vector<float> values;
  values.reserve(static_cast<size_t>((end - begin) * matrix.cols));
  for (int64_t i = begin * matrix.cols; i < end * matrix.cols; ++i) {
    values.push_back(
        static_cast<float>(matrix.codes[static_cast<size_t>(i)]) *
        matrix.scales[static_cast<size_t>(i / matrix.grid->group)]);
  }
  return values;
}

absl::StatusOr<std::unique_ptr<GridModel>> GridModel::Open(
    const std::string& base_path, const std::string& folded_path) {
  auto grid = std::unique_ptr<GridModel>(new GridModel);
  ASSIGN_OR_RETURN(grid->base_, GgufFile::Open(base_path));
  ASSIGN_OR_RETURN(grid->config_, model::ConfigFromGguf(*grid->base_));
  grid->linears_ = model::GemmaLinears(grid->config_);
  grid->tables_ = model::GemmaTables(grid->config_);
  RETURN_IF_ERROR(grid->CheckBase());
  if (folded_path.empty()) return grid;
  ASSIGN_OR_RETURN(grid->folded_,
                   FoldedCheckpoint::Open(folded_path, grid->config_));
  for (GridNorm& norm : grid->norms_) {
    const auto folded = grid->folded_->Norm(norm.spec.gguf_name);
    if (!folded.empty()) norm.data = folded;
  }
  return grid;
}

// ConfigFromGguf has checked that every tensor is there with its shape.
absl::Status GridModel::CheckBase() {
  for (const LinearSpec& spec : linears_) {
    RETURN_IF_ERROR(CheckMatrixType(*base_, spec.gguf_name));
  }
  for (const model::TableSpec& spec : tables_) {
    RETURN_IF_ERROR(CheckMatrixType(*base_, spec.gguf_name));
  }
  for (const model::NormSpec& spec : model::GemmaNorms(config_)) {
    const GgufFile::Tensor* tensor = base_->Find(spec.gguf_name);
    if (tensor->type != GgmlType::kF32) {
      return NotOnGrid(*base_, spec.gguf_name, "F32");
    }
    norms_.push_back({spec, tensor->data});
  }
  if (base_->tensors().size() !=
      linears_.size() + norms_.size() + tables_.size()) {
    return NotOnGrid(*base_, "table", "that of an imported base model");
  }
  return absl::OkStatus();
}

const LinearSpec* GridModel::FindLinear(const std::string& gguf_name) const {
  const auto found = std::find_if(
      linears_.begin(), linears_.end(),
      [&](const LinearSpec& spec) { return spec.gguf_name == gguf_name; });
  return found == linears_.end() ? nullptr : &*found;
}

const GridNorm* GridModel::FindNorm(const std::string& gguf_name) const {
  const auto found = std::find_if(
      norms_.begin(), norms_.end(),
      [&](const GridNorm& norm) { return norm.spec.gguf_name == gguf_name; });
  return found == norms_.end() ? nullptr : &*found;
}

const quant::Grid& GridModel::GridOf(const std::string& gguf_name) const {
  const bool folded =
      folded_ != nullptr &&
      (FindLinear(gguf_name) != nullptr ||
       (gguf_name == model::kGgufEmbedding && folded_->has_embedding()));
  if (folded) return folded_->GridOf(gguf_name);
  return **quant::GridOfBlocks(base_->Find(gguf_name)->type);
}

absl::StatusOr<quant::GridMatrix> GridModel::Matrix(
    const std::string& gguf_name, bool folded) const {
  const std::string& path = folded ? folded_->path() : base_->path();
  absl::StatusOr<quant::GridMatrix> matrix;
  if (folded) {
    matrix = folded_->Matrix(gguf_name);
  } else {
    const GgufFile::Tensor& tensor = *base_->Find(gguf_name);
    matrix = quant::UnpackBlocks(tensor.type, tensor.data, tensor.rows(),
                                 tensor.cols());
  }
  const absl::Status status =
      matrix.ok() ? quant::ValidateMatrix(*matrix) : matrix.status();
  if (!status.ok()) return Corrupt(path, gguf_name, status.message());
  return matrix;
}

absl::StatusOr<quant::GridMatrix> GridModel::Linear(
    const LinearSpec& spec) const {
  const bool folded = folded_ != nullptr;
  ASSIGN_OR_RETURN(quant::GridMatrix matrix, Matrix(spec.gguf_name, folded));
  for (size_t g = 0; g < matrix.scales.size(); ++g) {
    if (quant::IsDualExact(matrix.scales[g])) continue;
    return Corrupt(
        folded ? folded_->path() : base_->path(), spec.gguf_name,
        absl::StrCat("has a scale that is not dual-exact, ", "at group ", g));
  }
  return matrix;
}

absl::StatusOr<quant::GridMatrix> GridModel::Table(
    const model::TableSpec& spec) const {
  const bool folded = folded_ != nullptr && folded_->has_embedding() &&
                      spec.gguf_name == model::kGgufEmbedding;
  ASSIGN_OR_RETURN(quant::GridMatrix matrix, Matrix(spec.gguf_name, folded));
  if (!folded) return matrix;
  for (size_t g = 0; g < matrix.scales.size(); ++g) {
    if (IsF16(matrix.scales[g])) continue;
    return Corrupt(
        folded_->path(), spec.gguf_name,
        absl::StrCat("has a scale that f16 does not hold, at group ", g));
  }
  return matrix;
}

absl::StatusOr<quant::GridMatrix> GridModel::MatrixByName(
    const std::string& gguf_name) const {
  if (const LinearSpec* spec = FindLinear(gguf_name)) return Linear(*spec);
  return Table(*std::find_if(tables_.begin(), tables_.end(),
                             [&](const model::TableSpec& table) {
                               return table.gguf_name == gguf_name;
                             }));
}

}  // namespace onegrid::exporter
