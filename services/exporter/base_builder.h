// Collects the tensors of an on-grid base GGUF and reports what the grid
// changed. The imports of every source format write through it.
#ifndef SERVICES_EXPORTER_BASE_BUILDER_H_
#define SERVICES_EXPORTER_BASE_BUILDER_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "proto/onegrid/v1/base_model.pb.h"
#include "services/exporter/file_type.h"
#include "services/exporter/grid_encode.h"
#include "services/model/gguf_value.h"
#include "services/model/gguf_writer.h"
#include "services/model/tensor_names.h"

namespace onegrid::exporter {

// Metadata of a file whose matrices are mostly Q4_0; Finish puts another file
// type in its place if they are not.
std::map<std::string, model::GgufValue> BaseFileType();

// Not thread-safe.
class BaseBuilder {
 public:
  model::GgufWriter& writer() { return writer_; }

  // A linear layer, in the blocks of its grid.
  absl::Status AddLinear(const model::LinearSpec& spec,
                         const GridEncoding& encoding);
  // A table that is looked up by token, Q8_0 by ggml's rule.
  // INVALID_ARGUMENT (UNSUPPORTED_TENSOR): a value that is not finite or too
  // large, rows that are not whole groups.
  absl::Status AddTable(const model::TableSpec& spec,
                        absl::Span<const float> values);
  // A norm or scale, F32, in GGUF's convention. Errors: as AddTable.
  absl::Status AddNorm(const model::NormSpec& spec,
                       absl::Span<const float> values);
  // Names a matrix in the report, and in the log, if its encoding moved scales
  // or encoded groups afresh.
  void ReportOffGrid(const std::string& gguf_name,
                     const GridEncoding& encoding);
  // Counts a tensor that the caller put into the writer itself.
  void CountParameters(int64_t parameters);

  // Writes the file and completes the report; logs a warning if groups of
  // float weights lie on no lattice. Errors: those of GgufWriter::WriteTo.
  absl::StatusOr<v1::ImportReport> Finish(const std::string& out,
                                          const std::string& architecture,
                                          const std::string& tokenizer_sha256);

 private:
  model::GgufWriter writer_;
  GridWeights weights_;
  v1::ImportReport report_;
  double error_squares_ = 0;
  double weight_squares_ = 0;
};

}  // namespace onegrid::exporter

#endif  // SERVICES_EXPORTER_BASE_BUILDER_H_
