#include "services/exporter/importer.h"

#include <map>
#include <memory>
#include <vector>

#include "absl/strings/str_cat.h"
#include "kernels/quant/ggml_types.h"
#include "services/common/error_info.h"
#include "services/exporter/base_builder.h"
#include "services/exporter/copy_metadata.h"
#include "services/exporter/grid_encode.h"
#include "services/model/gemma_config.h"
#include "services/model/gguf_reader.h"
#include "services/model/tensor_names.h"
#include "services/model/tensor_ops.h"
#include "services/model/tokenizer_digest.h"

namespace onegrid::exporter {
namespace {

using model::GgufFile;
using quant::GgmlType;

absl::Status TensorError(const GgufFile::Tensor& tensor,
                         absl::string_view what) {
  return common::MakeError(absl::StatusCode::kInvalidArgument,
                           "UNSUPPORTED_TENSOR",
                           absl::StrCat("tensor ", tensor.name, " ", what),
                           {{"tensor", tensor.name}});
}

class Importer {
 public:
  Importer(const GgufFile& file, const model::GemmaConfig& config,
           const ImportOptions& options)
      : file_(file), config_(config), options_(options) {
    for (const model::LinearSpec& spec : model::GemmaLinears(config)) {
      linears_[spec.gguf_name] = spec;
    }
    for (const model::NormSpec& spec : model::GemmaNorms(config)) {
      norms_[spec.gguf_name] = spec;
    }
    for (const model::TableSpec& spec : model::GemmaTables(config)) {
      tables_[spec.gguf_name] = spec;
    }
  }

  absl::StatusOr<v1::ImportReport> Run(const std::string& out);

 private:
  absl::Status AddOne(const GgufFile::Tensor& tensor);
  absl::Status AddTable(const GgufFile::Tensor& tensor,
                        const model::TableSpec& spec);

  const GgufFile& file_;
  const model::GemmaConfig& config_;
  const ImportOptions& options_;
  std::map<std::string, model::LinearSpec> linears_;
  std::map<std::string, model::NormSpec> norms_;
  std::map<std::string, model::TableSpec> tables_;
  BaseBuilder builder_;
};

absl::Status Importer::AddTable(const GgufFile::Tensor& tensor,
                                const model::TableSpec& spec) {
  if (tensor.type == GgmlType::kQ8_0) {
    builder_.CountParameters(tensor.rows() * tensor.cols());
    return builder_.writer().AddProduced(
        tensor.name, tensor.type, tensor.dims,
        [&, this](const model::GgufWriter::Sink& sink) -> absl::Status {
          RETURN_IF_ERROR(sink(tensor.data));
          return builder_.TensorDone();
        });
  }
  return builder_.AddTable(spec, [&](int64_t begin, int64_t end) {
    return model::DequantizeRows(tensor, begin, end);
  });
}

absl::Status Importer::AddOne(const GgufFile::Tensor& tensor) {
  if (const auto linear = linears_.find(tensor.name);
      linear != linears_.end()) {
    const quant::Grid& grid = BaseGrid(linear->second);
    return builder_.AddLinear(
        linear->second, grid, [&, this](int64_t begin, int64_t end) {
          return EncodeOnGrid(tensor, begin, end, grid, options_.threads);
        });
  }
  if (const auto norm = norms_.find(tensor.name); norm != norms_.end()) {
    ASSIGN_OR_RETURN(const std::vector<float> values,
                     model::DequantizeTensor(tensor));
    return builder_.AddNorm(norm->second, values);
  }
  if (const auto table = tables_.find(tensor.name); table != tables_.end()) {
    return AddTable(tensor, table->second);
  }
  if (model::IsUnusedKv(config_, tensor.name)) return absl::OkStatus();
  return TensorError(tensor, "is not part of this architecture");
}

absl::StatusOr<v1::ImportReport> Importer::Run(const std::string& out) {
  CopyMetadata(file_, &builder_.writer(), BaseFileType());
  ASSIGN_OR_RETURN(const std::string architecture,
                   file_.GetString("general.architecture"));
  ASSIGN_OR_RETURN(const std::string digest, model::TokenizerDigest(file_));
  const auto total = static_cast<int64_t>(linears_.size() + tables_.size());
  int64_t done = 0;
  builder_.SetProgress([&]() -> absl::Status {
    return options_.progress ? options_.progress("import", ++done, total)
                             : absl::OkStatus();
  });
  for (const GgufFile::Tensor& tensor : file_.tensors()) {
    RETURN_IF_ERROR(AddOne(tensor));
  }
  return builder_.Finish(out, architecture, digest);
}

}  // namespace

absl::StatusOr<v1::ImportReport> ImportGguf(const std::string& source,
                                            const std::string& out,
                                            const ImportOptions& options) {
  ASSIGN_OR_RETURN(const std::unique_ptr<GgufFile> file,
                   GgufFile::Open(source));
  ASSIGN_OR_RETURN(const model::GemmaConfig config,
                   model::ConfigFromGguf(*file));
  return Importer(*file, config, options).Run(out);
}

}  // namespace onegrid::exporter
