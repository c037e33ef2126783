#ifndef SERVICES_MODEL_HF_CHECKPOINT_H_
#define SERVICES_MODEL_HF_CHECKPOINT_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "services/model/gemma_config.h"
#include "services/model/safetensors_folder.h"

namespace onegrid::model {

// A Hugging Face model folder of float weights: config.json and either
// model.safetensors or the shards of model.safetensors.index.json. Files are
// outside input: the configuration must fit the tensors, every tensor of the
// model must be there, of the right shape and in BF16, F16 or F32, and no
// other tensor may be.
//
// Thread-safe after Open.
class HfCheckpoint {
 public:
  // Errors: those of ConfigFromHfJson and SafetensorsFolder::Open; NotFound: no
  // config.json; DataLoss (CORRUPT_FILE), naming file and tensor: a missing
  // tensor, a wrong shape; InvalidArgument (UNSUPPORTED_TENSOR): another type,
  // or a tensor that the architecture does not have.
  static absl::StatusOr<std::unique_ptr<HfCheckpoint>> Open(
      const std::string& folder);

  const std::string& folder() const { return folder_; }
  const GemmaConfig& config() const { return config_; }

  // The values of a tensor by its Hugging Face name, with ".weight", as f32,
  // row-major (a copy). NotFound: no such tensor.
  absl::StatusOr<std::vector<float>> Values(const std::string& name) const;

 private:
  HfCheckpoint() = default;
  absl::Status CheckTensors() const;
  absl::Status CheckTensor(const std::string& name,
                           const std::vector<int64_t>& shape) const;

  std::string folder_;
  GemmaConfig config_;
  std::unique_ptr<SafetensorsFolder> weights_;
};

}  // namespace onegrid::model

#endif  // SERVICES_MODEL_HF_CHECKPOINT_H_
