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
#include "kernels/quant/grid.h"
#include "services/model/ct_matrix.h"
#include "services/model/gemma_config.h"
#include "services/model/gemma_quant_matrix.h"
#include "services/model/hf_config_file.h"
#include "services/model/packed_matrix.h"
#include "services/model/safetensors_folder.h"

namespace onegrid::model {

// The quant_method of Google's mobile layout.
inline constexpr char kMobileMethod[] = "gemma";

// Whether there are tensors of a head (lm_head).
bool HasHead(const SafetensorsFolder& weights);

// A Hugging Face model folder: config.json and either model.safetensors or the
// shards of model.safetensors.index.json. Weights are floats, or packed by
// compressed-tensors or in Google's mobile layout (quant_method "gemma") where
// the quantization_config says so. Files are outside
// input: the configuration must fit the tensors, every tensor of the model must
// be there, of the right shape and in BF16, F16 or F32 unless it is packed, and
// no other tensor may be. A head (lm_head) that has the embedding's values is
// tied, whatever the configuration says.
//
// Thread-safe after Open.
class HfCheckpoint {
 public:
  // Errors: those of ReadHfConfigFile, ConfigFromHfJson, CtConfig,
  // CheckCtModule, GemmaQuantConfig, CheckGemmaModule and
  // SafetensorsFolder::Open; DataLoss (CORRUPT_FILE), naming file and tensor: a
  // missing tensor, a wrong shape; InvalidArgument (UNSUPPORTED_TENSOR):
  // another type, or a tensor that the architecture does not have.
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
    return ct_.count(module) + mobile_.count(module) > 0;
  }
  // Of a module that is.
  PackedShape PackedShapeOf(const std::string& module) const;
  // Its GridOfPacked. Reads all codes of 2 bits.
  absl::StatusOr<const quant::Grid*> PackedGrid(
      const std::string& module) const;
  // Rows [begin, end) of it (a copy); they must be in it. InvalidArgument
  // (UNSUPPORTED_TENSOR): a scale that is not finite.
  absl::StatusOr<PackedMatrix> PackedRows(const std::string& module,
                                          int64_t begin, int64_t end) const;

  // Scales of activations, keys and values for a static quantization, which
  // nothing here computes with.
  int64_t static_scales() const { return static_scales_; }

 private:
  HfCheckpoint() = default;
  // The modules that may be packed.
  std::vector<CtModuleShape> Modules() const;
  absl::Status AssignSchemes(const HfConfigFile& file);
  absl::Status AssignMobileBits(const HfConfigFile& file);
  absl::Status CheckTensors(bool tied_head);
  absl::Status CheckTensor(const std::string& name,
                           const std::vector<int64_t>& shape) const;
  absl::Status CheckMatrix(const std::string& module, int64_t out, int64_t in,
                           std::set<std::string>& known);
  absl::Status CheckHead(bool tied_head, std::set<std::string>& known);
  // The values of either kind of module.
  absl::StatusOr<std::vector<float>> ModuleRows(const std::string& module,
                                                int64_t begin, int64_t end,
                                                int64_t cols) const;

  std::string folder_;
  GemmaConfig config_;
  std::unique_ptr<SafetensorsFolder> weights_;
  // By module; at most one of them has any.
  std::map<std::string, CtModuleShape> ct_;
  std::map<std::string, GemmaModuleShape> mobile_;
  int64_t static_scales_ = 0;
};

}  // namespace onegrid::model

#endif  // SERVICES_MODEL_HF_CHECKPOINT_H_
