#include "services/exporter/folded_checkpoint.h"

#include <cmath>
#include <cstring>
#include <set>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "nlohmann/json.hpp"
#include "services/common/error_info.h"
#include "services/model/tensor_names.h"

namespace onegrid::exporter {
namespace {

constexpr char kGrids[] = "grids";

std::string CodesOf(const std::string& name) { return name + ".codes"; }
std::string ScalesOf(const std::string& name) { return name + ".scales"; }

}  // namespace

absl::Status FoldedCheckpoint::Corrupt(absl::string_view tensor,
                                       absl::string_view what) const {
  return common::MakeError(absl::StatusCode::kInvalidArgument, "CORRUPT_FILE",
                           absl::StrCat(path(), ": tensor ", tensor, " ", what),
                           {{"tensor", std::string(tensor)}});
}

absl::StatusOr<std::unique_ptr<FoldedCheckpoint>> FoldedCheckpoint::Open(
    const std::string& path, const model::GemmaConfig& config) {
  auto folded = std::unique_ptr<FoldedCheckpoint>(new FoldedCheckpoint);
  ASSIGN_OR_RETURN(folded->file_, model::SafetensorsFile::Open(path));
  RETURN_IF_ERROR(folded->ReadGrids(config));
  for (const model::LinearSpec& spec : model::GemmaLinears(config)) {
    folded->grids_.emplace(spec.gguf_name, &quant::kInt4G32);
    RETURN_IF_ERROR(folded->CheckMatrix(spec.gguf_name, spec.out, spec.in));
  }
  const std::string embedding = model::kGgufEmbedding;
  folded->has_embedding_ =
      folded->file_->Find(CodesOf(embedding)) != nullptr ||
      folded->file_->Find(ScalesOf(embedding)) != nullptr ||
      folded->grids_.count(embedding) > 0;
  if (folded->has_embedding_) {
    folded->grids_.emplace(embedding, &quant::kInt4G32);
    RETURN_IF_ERROR(
        folded->CheckMatrix(embedding, config.vocab_size, config.hidden));
  }
  for (const model::NormSpec& spec : model::GemmaNorms(config)) {
    RETURN_IF_ERROR(folded->CheckNorm(spec.gguf_name, spec.size));
  }
  RETURN_IF_ERROR(folded->CheckNothingElse(config));
  return folded;
}

absl::Status FoldedCheckpoint::ReadGrids(const model::GemmaConfig& config) {
  std::set<std::string> matrices = {model::kGgufEmbedding};
  for (const model::LinearSpec& spec : model::GemmaLinears(config)) {
    matrices.insert(spec.gguf_name);
  }
  const auto found = file_->metadata().find(kGrids);
  if (found == file_->metadata().end()) return absl::OkStatus();
  const auto json = nlohmann::json::parse(found->second, nullptr,
                                          /*allow_exceptions=*/false);
  if (!json.is_object()) {
    return common::MakeError(
        absl::StatusCode::kInvalidArgument, "CORRUPT_FILE",
        absl::StrCat(path(), ": metadata grids is not a JSON object"),
        {{"metadata", kGrids}});
  }
  for (const auto& [name, value] : json.items()) {
    if (matrices.count(name) == 0) {
      return Corrupt(name, "has a grid but is no matrix of the base");
    }
    const auto* text = value.get_ptr<const std::string*>();
    const auto grid = quant::GridByName(text != nullptr ? *text : "");
    if (!grid.ok()) {
      // The library writes other values by recursion, as deep as they nest.
      return Corrupt(
          name, absl::StrCat("is said to be on ",
                             text != nullptr
                                 ? absl::StrCat("\"", *text, "\"")
                                 : absl::StrCat("a JSON ", value.type_name()),
                             ": ", grid.status().message()));
    }
    grids_[name] = *grid;
  }
  return absl::OkStatus();
}

absl::Status FoldedCheckpoint::CheckEntry(const std::string& name,
                                          const std::string& dtype,
                                          const std::vector<int64_t>& shape) {
  const auto* tensor = file_->Find(name);
  if (tensor == nullptr) return Corrupt(name, "is missing");
  if (tensor->dtype != dtype || tensor->shape != shape) {
    return Corrupt(
        name, absl::StrCat("is ", tensor->dtype, " [",
                           absl::StrJoin(tensor->shape, ", "), "], expected ",
                           dtype, " [", absl::StrJoin(shape, ", "), "]"));
  }
  return absl::OkStatus();
}

absl::Status FoldedCheckpoint::CheckMatrix(const std::string& name,
                                           int64_t rows, int64_t cols) {
  const quant::Grid& grid = GridOf(name);
  if (cols % grid.group != 0) {
    return Corrupt(name, absl::StrCat("has ", cols, " inputs, which groups of ",
                                      grid.name, " do not fit"));
  }
  RETURN_IF_ERROR(CheckEntry(CodesOf(name), "I8", {rows, cols}));
  return CheckEntry(ScalesOf(name), "F32", {rows, cols / grid.group});
}

absl::Status FoldedCheckpoint::CheckNorm(const std::string& name,
                                         int64_t size) {
  const auto* tensor = file_->Find(name);
  if (tensor == nullptr) return absl::OkStatus();
  RETURN_IF_ERROR(CheckEntry(name, "F32", {size}));
  for (size_t at = 0; at < tensor->data.size(); at += sizeof(float)) {
    float value;
    std::memcpy(&value, tensor->data.data() + at, sizeof(value));
    if (!std::isfinite(value)) {
      return Corrupt(name, "has a value that is not finite");
    }
  }
  return absl::OkStatus();
}

// By now grids_ has every matrix.
absl::Status FoldedCheckpoint::CheckNothingElse(
    const model::GemmaConfig& config) const {
  std::set<std::string> tensors;
  for (const auto& [name, grid] : grids_) {
    tensors.insert(CodesOf(name));
    tensors.insert(ScalesOf(name));
  }
  for (const model::NormSpec& spec : model::GemmaNorms(config)) {
    tensors.insert(spec.gguf_name);
  }
  for (const std::string& name : file_->names()) {
    if (tensors.count(name) == 0) {
      return Corrupt(name, "does not belong to a matrix or norm of the base");
    }
  }
  return absl::OkStatus();
}

quant::GridMatrix FoldedCheckpoint::Matrix(const std::string& gguf_name) const {
  const auto* codes = file_->Find(CodesOf(gguf_name));
  const auto* scales = file_->Find(ScalesOf(gguf_name));
  quant::GridMatrix matrix;
  matrix.grid = &GridOf(gguf_name);
  matrix.rows = codes->shape[0];
  matrix.cols = codes->shape[1];
  matrix.codes.resize(codes->data.size());
  std::memcpy(matrix.codes.data(), codes->data.data(), codes->data.size());
  matrix.scales.resize(scales->data.size() / sizeof(float));
  std::memcpy(matrix.scales.data(), scales->data.data(), scales->data.size());
  return matrix;
}

absl::Span<const uint8_t> FoldedCheckpoint::Norm(
    const std::string& gguf_name) const {
  const auto* tensor = file_->Find(gguf_name);
  if (tensor == nullptr) return {};
  return tensor->data;
}

}  // namespace onegrid::exporter
