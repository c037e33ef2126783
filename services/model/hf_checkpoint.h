#ifndef SERVICES_MODEL_HF_CHECKPOINT_H_
#define SERVICES_MODEL_HF_CHECKPOINT_H_

#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "services/model/ct_matrix.h"
#include "services/model/gemma_config.h"
#include "services/model/safetensors_folder.h"

namespace onegrid::model {

// A Hugging Face model folder: config.json and either model.safetensors or the
// shards of model.safetensors.index.json. Weights are floats, or packed by
// compressed-tensors where the quantization_config says so. Files are outside
// input: the configuration must fit the tensors, every tensor of the model must
// be there, of the right shape and in BF16, F16 or F32 unless it is packed, and
// no other tensor may be. A head of its own (lm_head) must be the embedding
// again.
//
// Thread-safe after Open.
class HfCheckpoint {
 public:
  // Errors: those of ReadHfConfigFile, ConfigFromHfJson, CtConfig,
  // CheckCtModule and SafetensorsFolder::Open; DataLoss (CORRUPT_FILE), naming
  // file and tensor: a missing tensor, a wrong shape; InvalidArgument
  // (UNSUPPORTED_TENSOR): another type, a tensor that the architecture does not
  // have, or a head that is not the embedding.
  static absl::StatusOr<std::unique_ptr<HfCheckpoint>> Open(
      const std::string& folder);

  const std::string& folder() const { return folder_; }
  const GemmaConfig& config() const { return config_; }

  // Rows [begin, end) of `cols` values each, whatever the tensor's dimensions:
  // as Values. They must be in the tensor.
  absl::StatusOr<std::vector<float>> Rows(const std::string& name,
                                          int64_t begin, int64_t end,
                                          int64_t cols) const;
  // The values of a tensor by its Hugging Face name, with ".weight", as f32,
  // row-major (a copy). NotFound: no such tensor, or it is packed.
  absl::StatusOr<std::vector<float>> Values(const std::string& name) const;

  // Of a module by its Hugging Face name, without ".weight".
  bool IsPacked(const std::string& module) const {
    return packed_.count(module) > 0;
  }
  // The codes and scales (a copy) of a module that is. InvalidArgument
  // (UNSUPPORTED_TENSOR): a scale that is not finite.
  absl::StatusOr<CtMatrix> Packed(const std::string& module) const;

 private:
  HfCheckpoint() = default;
  absl::Status AssignSchemes(const std::string& quantization,
                             const std::string& path);
  absl::Status CheckTensors(bool tied_head) const;
  absl::Status CheckTensor(const std::string& name,
                           const std::vector<int64_t>& shape) const;
  absl::Status CheckMatrix(const std::string& module, int64_t out, int64_t in,
                           std::set<std::string>& known) const;
  absl::Status CheckHead(bool tied_head, std::set<std::string>& known) const;

  std::string folder_;
  GemmaConfig config_;
  std::unique_ptr<SafetensorsFolder> weights_;
  std::map<std::string, CtModuleShape> packed_;  // by module
};

}  // namespace onegrid::model

#endif  // SERVICES_MODEL_HF_CHECKPOINT_H_
