// A model on its grid: a base GGUF whose linears may be replaced by the codes
// and scales of a folded checkpoint. Every export and every comparison reads
// the model through this class.
#ifndef SERVICES_EXPORTER_GRID_MODEL_H_
#define SERVICES_EXPORTER_GRID_MODEL_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/quant/grid.h"
#include "services/model/gemma3_config.h"
#include "services/model/gguf_reader.h"
#include "services/model/safetensors.h"
#include "services/model/tensor_names.h"

namespace onegrid::exporter {

// A norm of the base: F32, one dimension.
struct GridNorm {
  model::NormSpec spec;
  const model::GgufFile::Tensor* tensor;
};

// Thread-safe after Open.
class GridModel {
 public:
  // Opens the on-grid GGUF `base_path` and, unless `folded_path` is empty,
  // the folded checkpoint: for each linear with GGUF name N, N.codes I8
  // [out, in] and N.scales F32 [out, in / 32].
  //
  // Errors: those of the readers; FAILED_PRECONDITION (NOT_ON_GRID) if the
  // base's linears are not Q4_0, its embedding not Q8_0 or a norm not F32;
  // INVALID_ARGUMENT (CORRUPT_FILE), naming file and tensor, if a folded
  // tensor is missing, unexpected or has the wrong type or shape.
  static absl::StatusOr<std::unique_ptr<GridModel>> Open(
      const std::string& base_path, const std::string& folded_path);

  const model::GgufFile& base() const { return *base_; }
  const model::Gemma3Config& config() const { return config_; }
  const std::vector<model::LinearSpec>& linears() const { return linears_; }
  // Token embedding, Q8_0.
  const model::GgufFile::Tensor& embedding() const { return *embedding_; }
  const std::vector<GridNorm>& norms() const { return norms_; }
  // The linear with this GGUF name, or null.
  const model::LinearSpec* FindLinear(const std::string& gguf_name) const;

  // The codes and scales of one linear (a copy). INVALID_ARGUMENT
  // (CORRUPT_FILE): a code outside -8..7 or a scale that is not dual-exact.
  absl::StatusOr<quant::GridMatrix> Linear(const model::LinearSpec& spec) const;

 private:
  GridModel() = default;
  absl::Status CheckBase();
  absl::Status CheckFolded();
  absl::StatusOr<quant::GridMatrix> FoldedLinear(
      const model::LinearSpec& spec) const;

  std::unique_ptr<model::GgufFile> base_;
  std::unique_ptr<model::SafetensorsFile> folded_;  // may be null
  std::string folded_path_;
  model::Gemma3Config config_;
  std::vector<model::LinearSpec> linears_;
  const model::GgufFile::Tensor* embedding_ = nullptr;
  std::vector<GridNorm> norms_;
};

}  // namespace onegrid::exporter

#endif  // SERVICES_EXPORTER_GRID_MODEL_H_
