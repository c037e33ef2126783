#include <algorithm>
#include <memory>
#include <set>
#include <vector>

#include "absl/strings/str_cat.h"
#include "kernels/quant/ggml_types.h"
#include "kernels/quant/grid_blocks.h"
#include "services/common/error_info.h"
#include "services/model/gguf_reader.h"
#include "services/model/mapped_file.h"
#include "services/model/model_summary_builder.h"
#include "services/model/sentencepiece_model.h"
#include "services/model/tensor_names.h"

namespace onegrid::model {
namespace {

// Bounds the memory that the codes of a part of a matrix take.
constexpr int64_t kElementsAtOnce = int64_t{1} << 24;

// Adds the scales of a matrix that is stored on `grid`.
absl::Status AddScales(const GgufFile& file, const GgufFile::Tensor& tensor,
                       const quant::Grid& grid, ModelSummaryBuilder& builder) {
  const int64_t row_bytes = *quant::RowBytes(tensor.type, tensor.cols());
  const int64_t step = std::max<int64_t>(1, kElementsAtOnce / tensor.cols());
  for (int64_t row = 0; row < tensor.rows(); row += step) {
    const int64_t rows = std::min(step, tensor.rows() - row);
    const absl::Span<const uint8_t> part =
        tensor.data.subspan(row * row_bytes, rows * row_bytes);
    const auto matrix =
        quant::UnpackBlocks(tensor.type, part, rows, tensor.cols());
    if (!matrix.ok()) {
      return CorruptFile(file.path(),
                         absl::StrCat("tensor '", tensor.name,
                                      "': ", matrix.status().message()));
    }
    builder.AddScales(grid, matrix->scales);
    file.DropPages(part);
  }
  return absl::OkStatus();
}

absl::Status AddTensors(const GgufFile& file, const GemmaConfig& config,
                        ModelSummaryBuilder& builder) {
  std::set<std::string> matrices;
  for (const TableSpec& spec : GemmaTables(config)) {
    matrices.insert(spec.gguf_name);
  }
  for (const LinearSpec& spec : GemmaLinears(config)) {
    matrices.insert(spec.gguf_name);
  }
  std::set<std::string> norms;
  for (const NormSpec& spec : GemmaNorms(config)) norms.insert(spec.gguf_name);
  for (const GgufFile::Tensor& tensor : file.tensors()) {
    builder.AddTensor(quant::TraitsOf(tensor.type)->name,
                      tensor.rows() * tensor.cols(),
                      static_cast<int64_t>(tensor.data.size()));
    if (matrices.count(tensor.name) == 0) {
      if (norms.count(tensor.name) == 0) builder.AddOtherTensor(tensor.name);
      continue;
    }
    if (tensor.type == quant::GgmlType::kBF16) {
      builder.SetServedType(tensor.name, tensor.type);
    }
    const auto grid = quant::GridOfBlocks(tensor.type);
    if (!grid.ok()) continue;
    builder.SetServedType(tensor.name, tensor.type);
    RETURN_IF_ERROR(AddScales(file, tensor, **grid, builder));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<ModelSummary> SummaryOfGguf(const std::string& path,
                                           int64_t context_tokens) {
  ASSIGN_OR_RETURN(const std::unique_ptr<GgufFile> file, GgufFile::Open(path));
  ASSIGN_OR_RETURN(const GemmaConfig config, ConfigFromGguf(*file));
  ModelSummaryBuilder builder("GGUF", config);
  if (file->Has("tokenizer.ggml.model")) {
    ASSIGN_OR_RETURN(const Vocabulary vocabulary, VocabularyFromGguf(*file));
    builder.SetTokenizer(vocabulary);
  }
  if (file->Has("tokenizer.chat_template")) {
    ASSIGN_OR_RETURN(const std::string jinja,
                     file->GetString("tokenizer.chat_template"));
    builder.SetChatTemplate(jinja);
  }
  RETURN_IF_ERROR(AddTensors(*file, config, builder));
  return builder.Finish(context_tokens, /*packed_form=*/"");
}

}  // namespace onegrid::model
