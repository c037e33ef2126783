// Collects the tensors of an on-grid base GGUF and reports what the grid
// changed. The imports of every source format write through it.
#ifndef SERVICES_EXPORTER_BASE_BUILDER_H_
#define SERVICES_EXPORTER_BASE_BUILDER_H_

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <utility>
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

  // A linear layer, in the blocks of `grid`, encoded part by part when Finish
  // writes the file; `encode` gives rows [begin, end). Its experts' rows are
  // counted through.
  using EncodeRows =
      std::function<absl::StatusOr<GridEncoding>(int64_t begin, int64_t end)>;
  absl::Status AddLinear(const model::LinearSpec& spec, const quant::Grid& grid,
                         EncodeRows encode);
  // A table that is looked up by token, Q8_0 by ggml's rule, when Finish writes
  // the file; `rows` gives the values of rows [begin, end).
  // INVALID_ARGUMENT (UNSUPPORTED_TENSOR): a value that is not finite or too
  // large, rows that are not whole groups.
  using TableRows = std::function<absl::StatusOr<std::vector<float>>(
      int64_t begin, int64_t end)>;
  absl::Status AddTable(const model::TableSpec& spec, TableRows rows);
  // A norm or scale, F32, in GGUF's convention. Errors: as AddTable.
  absl::Status AddNorm(const model::NormSpec& spec,
                       absl::Span<const float> values);
  // Names a matrix in the report, and in the log, if its encoding moved scales
  // or encoded groups afresh.
  void ReportOffGrid(const std::string& gguf_name,
                     const GridEncoding& encoding);
  // Called after each linear and table, when it is added or when Finish makes
  // it; a status that is not OK stops the work.
  void SetProgress(std::function<absl::Status()> tensor_done) {
    tensor_done_ = std::move(tensor_done);
  }
  // For tensors that the caller puts into the writer itself.
  absl::Status TensorDone() const { return tensor_done_(); }
  // Counts a tensor that the caller put into the writer itself.
  void CountParameters(int64_t parameters);

  // Writes the file and completes the report; logs a warning if groups of
  // float weights lie on no lattice. Errors: those of GgufWriter::WriteTo, of
  // what makes tensors and of the progress.
  absl::StatusOr<v1::ImportReport> Finish(const std::string& out,
                                          const std::string& architecture,
                                          const std::string& tokenizer_sha256);

 private:
  model::GgufWriter writer_;
  GridWeights weights_;
  v1::ImportReport report_;
  void Count(const GridEncoding& encoding);

  std::function<absl::Status()> tensor_done_ = [] { return absl::OkStatus(); };
  double error_squares_ = 0;
  double weight_squares_ = 0;
};

}  // namespace onegrid::exporter

#endif  // SERVICES_EXPORTER_BASE_BUILDER_H_
