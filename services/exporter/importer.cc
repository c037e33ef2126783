#include "services/exporter/importer.h"

#include <cmath>
#include <memory>
#include <set>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "kernels/quant/ggml_types.h"
#include "kernels/quant/q4_0.h"
#include "kernels/quant/q8_0.h"
#include "services/common/error_info.h"
#include "services/exporter/copy_metadata.h"
#include "services/exporter/grid_encode.h"
#include "services/exporter/tokenizer_digest.h"
#include "services/model/gemma3_config.h"
#include "services/model/gguf_reader.h"
#include "services/model/gguf_writer.h"
#include "services/model/tensor_names.h"
#include "services/model/tensor_ops.h"

namespace onegrid::exporter {
namespace {

using model::GgufFile;
using quant::GgmlType;

// general.file_type of a file whose matrices are mostly Q4_0.
constexpr uint32_t kFileTypeQ4_0 = 2;
constexpr uint32_t kQuantizationVersion = 2;

absl::Status TensorError(const GgufFile::Tensor& tensor,
                         absl::string_view what) {
  return common::MakeError(absl::StatusCode::kInvalidArgument,
                           "UNSUPPORTED_TENSOR",
                           absl::StrCat("tensor ", tensor.name, " ", what),
                           {{"tensor", tensor.name}});
}

class Importer {
 public:
  Importer(const GgufFile& file, const model::Gemma3Config& config,
           const ImportOptions& options)
      : file_(file), options_(options) {
    for (const model::LinearSpec& spec : model::Gemma3Linears(config)) {
      linears_.insert(spec.gguf_name);
    }
    for (const model::NormSpec& spec : model::Gemma3Norms(config)) {
      norms_.insert(spec.gguf_name);
    }
  }

  absl::StatusOr<v1::ImportReport> Run(const std::string& out);

 private:
  absl::Status AddOne(const GgufFile::Tensor& tensor);
  absl::Status AddLinear(const GgufFile::Tensor& tensor);
  absl::Status AddEmbedding(const GgufFile::Tensor& tensor);
  absl::Status AddNorm(const GgufFile::Tensor& tensor);

  const GgufFile& file_;
  const ImportOptions& options_;
  std::set<std::string> linears_;
  std::set<std::string> norms_;
  model::GgufWriter writer_;
  v1::ImportReport report_;
  double error_squares_ = 0;
  double weight_squares_ = 0;
};

absl::Status Importer::AddLinear(const GgufFile::Tensor& tensor) {
  ASSIGN_OR_RETURN(const GridEncoding encoding,
                   EncodeOnGrid(tensor, options_.threads));
  ASSIGN_OR_RETURN(std::vector<uint8_t> packed,
                   quant::PackQ4_0(encoding.matrix));
  report_.set_tensors_on_grid(report_.tensors_on_grid() + 1);
  report_.set_groups(report_.groups() + encoding.groups);
  report_.set_groups_kept(report_.groups_kept() + encoding.groups_kept);
  error_squares_ += encoding.error_squares;
  weight_squares_ += encoding.weight_squares;
  return writer_.AddTensor(tensor.name, GgmlType::kQ4_0, tensor.dims,
                           std::move(packed));
}

absl::Status Importer::AddEmbedding(const GgufFile::Tensor& tensor) {
  if (tensor.type == GgmlType::kQ8_0) {
    return writer_.AddTensor(tensor.name, tensor.type, tensor.dims,
                             tensor.data);
  }
  ASSIGN_OR_RETURN(const std::vector<float> values,
                   model::DequantizeTensor(tensor));
  RETURN_IF_ERROR(CheckFinite(tensor.name, values));
  ASSIGN_OR_RETURN(std::vector<uint8_t> packed,
                   quant::EncodeQ8_0(values, tensor.rows(), tensor.cols()));
  return writer_.AddTensor(tensor.name, GgmlType::kQ8_0, tensor.dims,
                           std::move(packed));
}

absl::Status Importer::AddNorm(const GgufFile::Tensor& tensor) {
  ASSIGN_OR_RETURN(const std::vector<float> values,
                   model::DequantizeTensor(tensor));
  RETURN_IF_ERROR(CheckFinite(tensor.name, values));
  const auto* bytes = reinterpret_cast<const uint8_t*>(values.data());
  return writer_.AddTensor(
      tensor.name, GgmlType::kF32, tensor.dims,
      std::vector<uint8_t>(bytes, bytes + values.size() * sizeof(float)));
}

absl::Status Importer::AddOne(const GgufFile::Tensor& tensor) {
  report_.set_parameters(report_.parameters() + tensor.rows() * tensor.cols());
  if (linears_.count(tensor.name) > 0) return AddLinear(tensor);
  if (norms_.count(tensor.name) > 0) return AddNorm(tensor);
  if (tensor.name == model::kGgufEmbedding) return AddEmbedding(tensor);
  return TensorError(tensor, "is not part of this architecture");
}

absl::StatusOr<v1::ImportReport> Importer::Run(const std::string& out) {
  CopyMetadata(file_, &writer_,
               {{"general.file_type", kFileTypeQ4_0},
                {"general.quantization_version", kQuantizationVersion}});
  const int64_t total = static_cast<int64_t>(file_.tensors().size());
  int64_t done = 0;
  for (const GgufFile::Tensor& tensor : file_.tensors()) {
    RETURN_IF_ERROR(AddOne(tensor));
    if (options_.progress) {
      RETURN_IF_ERROR(options_.progress("import", ++done, total));
    }
  }
  RETURN_IF_ERROR(writer_.WriteTo(out));
  ASSIGN_OR_RETURN(*report_.mutable_architecture(),
                   file_.GetString("general.architecture"));
  if (weight_squares_ > 0) {
    report_.set_relative_rms_error(std::sqrt(error_squares_ / weight_squares_));
  }
  ASSIGN_OR_RETURN(*report_.mutable_tokenizer_sha256(), TokenizerDigest(file_));
  return report_;
}

}  // namespace

absl::StatusOr<v1::ImportReport> ImportGguf(const std::string& source,
                                            const std::string& out,
                                            const ImportOptions& options) {
  ASSIGN_OR_RETURN(const std::unique_ptr<GgufFile> file,
                   GgufFile::Open(source));
  ASSIGN_OR_RETURN(const model::Gemma3Config config,
                   model::ConfigFromGguf(*file));
  return Importer(*file, config, options).Run(out);
}

}  // namespace onegrid::exporter
