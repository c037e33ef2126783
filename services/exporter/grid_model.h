// A model on its grids: a base GGUF whose tensors may be replaced by those of a
// folded checkpoint. Every export and every comparison reads the model through
// this class.
#ifndef SERVICES_EXPORTER_GRID_MODEL_H_
#define SERVICES_EXPORTER_GRID_MODEL_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "kernels/quant/grid.h"
#include "services/exporter/folded_checkpoint.h"
#include "services/model/gemma_config.h"
#include "services/model/gguf_reader.h"
#include "services/model/tensor_names.h"

namespace onegrid::exporter {

// One norm: F32 values as GGUF has them.
struct GridNorm {
  model::NormSpec spec;
  absl::Span<const uint8_t> data;

  std::vector<float> Values() const;
};

// Whether compressed-tensors holds the linear's codes. Not those of experts,
// which are no layers of class Linear there; not the one outside all layers,
// which would be on a grid of its own: with several transformers cannot
// dequantize a model while it loads.
inline bool IsPackedInCt(const model::LinearSpec& spec) {
  return spec.experts == 1 && spec.layer >= 0;
}

// The values of rows [begin, end) of a matrix.
std::vector<float> DequantizeRows(const quant::GridMatrix& matrix,
                                  int64_t begin, int64_t end);

// Thread-safe after Open.
class GridModel {
 public:
  // Opens the on-grid GGUF `base_path` and, unless `folded_path` is empty,
  // the folded checkpoint, whose tensors take the base's place.
  //
  // Errors: those of the readers and of FoldedCheckpoint::Open;
  // FAILED_PRECONDITION (NOT_ON_GRID) if a linear or the embedding of the base
  // is not Q4_0, Q2_0 or Q8_0, or a norm not F32.
  static absl::StatusOr<std::unique_ptr<GridModel>> Open(
      const std::string& base_path, const std::string& folded_path);

  const model::GgufFile& base() const { return *base_; }
  const model::GemmaConfig& config() const { return config_; }
  const std::vector<model::LinearSpec>& linears() const { return linears_; }
  const std::vector<GridNorm>& norms() const { return norms_; }
  // The token embedding first.
  const std::vector<model::TableSpec>& tables() const { return tables_; }
  // The linear or norm with this GGUF name, or null.
  const model::LinearSpec* FindLinear(const std::string& gguf_name) const;
  const GridNorm* FindNorm(const std::string& gguf_name) const;

  // The grid of a linear, or of a matrix by its GGUF name.
  const quant::Grid& GridOf(const model::LinearSpec& spec) const {
    return GridOf(spec.gguf_name);
  }
  const quant::Grid& GridOf(const std::string& gguf_name) const;
  // The codes and scales of one linear (a copy). INVALID_ARGUMENT
  // (CORRUPT_FILE): a code outside the grid's or a scale that is not
  // dual-exact.
  absl::StatusOr<quant::GridMatrix> Linear(const model::LinearSpec& spec) const;
  // The same of a table, the token embedding (also the head) among them; scales
  // are what f16 holds, zero and negative ones included: no 16-bit type has its
  // values, so nothing asks for dual-exact ones.
  absl::StatusOr<quant::GridMatrix> Table(const model::TableSpec& spec) const;
  absl::StatusOr<quant::GridMatrix> Embedding() const {
    return Table(tables_[0]);
  }
  // The linear's, or the table's, by its GGUF name. The name must be one.
  absl::StatusOr<quant::GridMatrix> MatrixByName(
      const std::string& gguf_name) const;

 private:
  GridModel() = default;
  absl::Status CheckBase();
  absl::StatusOr<quant::GridMatrix> Matrix(const std::string& gguf_name,
                                           bool folded) const;

  std::unique_ptr<model::GgufFile> base_;
  std::unique_ptr<FoldedCheckpoint> folded_;  // may be null
  model::GemmaConfig config_;
  std::vector<model::LinearSpec> linears_;
  std::vector<GridNorm> norms_;
  std::vector<model::TableSpec> tables_;
};

}  // namespace onegrid::exporter

#endif  // SERVICES_EXPORTER_GRID_MODEL_H_
