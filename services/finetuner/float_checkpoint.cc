#include "services/finetuner/float_checkpoint.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "services/common/error_info.h"
#include "services/model/tensor_ops.h"

namespace onegrid::finetuner {
namespace {

absl::StatusOr<std::vector<float>> Values(const model::GgufFile& file,
                                          const std::string& name,
                                          const std::vector<int64_t>& dims) {
  const model::GgufFile::Tensor* tensor = file.Find(name);
  if (tensor == nullptr || tensor->dims != dims) {
    return common::MakeError(
        absl::StatusCode::kInvalidArgument, "UNSUPPORTED_TENSOR",
        absl::StrCat(file.path(), ": tensor ", name,
                     tensor == nullptr ? " is missing" : " has another shape"),
        {{"tensor", name}});
  }
  return model::DequantizeTensor(*tensor);
}

absl::StatusOr<at::Tensor> Matrix(const model::GgufFile& file,
                                  const std::string& name,
                                  const std::vector<int64_t>& dims,
                                  int64_t rows, int64_t cols) {
  ASSIGN_OR_RETURN(const std::vector<float> values, Values(file, name, dims));
  return at::from_blob(const_cast<float*>(values.data()), {rows, cols},
                       at::kFloat)
      .clone();
}

}  // namespace

absl::StatusOr<FloatCheckpoint> LoadFloatCheckpoint(
    const model::GgufFile& file) {
  FloatCheckpoint checkpoint;
  ASSIGN_OR_RETURN(checkpoint.config, model::ConfigFromGguf(file));
  const model::GemmaConfig& config = checkpoint.config;
  checkpoint.specs = model::GemmaLinears(config);
  for (const model::LinearSpec& spec : checkpoint.specs) {
    ASSIGN_OR_RETURN(
        at::Tensor matrix,
        Matrix(file, spec.gguf_name, spec.GgufDims(), spec.out, spec.in));
    checkpoint.linears.push_back(matrix);
  }
  for (const model::TableSpec& spec : model::GemmaTables(config)) {
    at::Tensor& table = spec.gguf_name == model::kGgufEmbedding
                            ? checkpoint.embedding
                            : checkpoint.per_layer_embedding;
    ASSIGN_OR_RETURN(table, Matrix(file, spec.gguf_name, {spec.cols, spec.rows},
                                   spec.rows, spec.cols));
  }
  for (const model::NormSpec& spec : model::GemmaNorms(config)) {
    ASSIGN_OR_RETURN(std::vector<float> norm,
                     Values(file, spec.gguf_name, spec.GgufDims()));
    checkpoint.norms.push_back(std::move(norm));
  }
  return checkpoint;
}

}  // namespace onegrid::finetuner
