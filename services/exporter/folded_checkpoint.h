// What a tuning job makes of a base model: the codes and scales of every
// linear, and what else it changed.
#ifndef SERVICES_EXPORTER_FOLDED_CHECKPOINT_H_
#define SERVICES_EXPORTER_FOLDED_CHECKPOINT_H_

#include <cstdint>
#include <map>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "kernels/quant/grid.h"
#include "services/model/gemma_config.h"
#include "services/model/safetensors.h"

namespace onegrid::exporter {

// A safetensors file that holds, N being GGUF names:
//   - per linear N.codes I8 [out, in] and N.scales F32 [out, in / group];
//   - the same of token_embd.weight, unless the base's stays;
//   - each norm that changed: N F32 [size], as GGUF has it;
//   - metadata `grids`, a JSON object {N: name of a grid}, for the matrices
//     that are not on int4_g32, the embedding too.
// Thread-safe after Open.
class FoldedCheckpoint {
 public:
  // Errors of the reader; INVALID_ARGUMENT (CORRUPT_FILE), naming file and
  // tensor: one is missing, unexpected or has the wrong type or shape, a grid
  // is unknown or its groups do not fit, a norm is not finite.
  static absl::StatusOr<std::unique_ptr<FoldedCheckpoint>> Open(
      const std::string& path, const model::GemmaConfig& config);

  const std::string& path() const { return file_->path(); }
  bool has_embedding() const { return has_embedding_; }
  // The grid of a linear, or of the embedding if there is one.
  const quant::Grid& GridOf(const std::string& gguf_name) const {
    return *grids_.at(gguf_name);
  }
  // Its codes and scales as they are in the file (a copy).
  quant::GridMatrix Matrix(const std::string& gguf_name) const;
  // The F32 values of a norm; empty if the base's stays.
  absl::Span<const uint8_t> Norm(const std::string& gguf_name) const;

 private:
  FoldedCheckpoint() = default;
  absl::Status ReadGrids(const model::GemmaConfig& config);
  absl::Status CheckMatrix(const std::string& name, int64_t rows, int64_t cols);
  absl::Status CheckNorm(const std::string& name, int64_t size);
  absl::Status CheckEntry(const std::string& name, const std::string& dtype,
                          const std::vector<int64_t>& shape);
  absl::Status CheckNothingElse(const model::GemmaConfig& config) const;
  absl::Status Corrupt(absl::string_view tensor, absl::string_view what) const;

  std::unique_ptr<model::SafetensorsFile> file_;
  bool has_embedding_ = false;
  // By matrix; first those of the metadata, then all.
  std::map<std::string, const quant::Grid*> grids_;
};

}  // namespace onegrid::exporter

#endif  // SERVICES_EXPORTER_FOLDED_CHECKPOINT_H_
