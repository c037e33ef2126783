#ifndef SERVICES_MODEL_SAFETENSORS_FOLDER_H_
#define SERVICES_MODEL_SAFETENSORS_FOLDER_H_

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/quant/ggml_types.h"
#include "services/model/safetensors.h"

namespace onegrid::model {

// The weights of a Hugging Face model folder: model.safetensors or the shards
// of model.safetensors.index.json, as one. Thread-safe after Open.
class SafetensorsFolder {
 public:
  // Errors: those of SafetensorsFile::Open; NotFound: no weights; DataLoss
  // (CORRUPT_FILE), naming file and tensor: a shard that is missing, lacks its
  // tensors or has one of another shard.
  static absl::StatusOr<std::unique_ptr<SafetensorsFolder>> Open(
      const std::string& folder);

  // Of a multimodal model: drops all tensors but the text model's, which get
  // the names they have in a folder of their own ("model.layers...",
  // "lm_head.weight"). NotFound: there is no text model.
  absl::Status KeepTextModel();

  // nullptr if there is no such tensor.
  const SafetensorsFile::Tensor* Find(const std::string& name) const;
  // The file of each tensor by name.
  const std::map<std::string, const SafetensorsFile*>& tensors() const {
    return tensors_;
  }

 private:
  SafetensorsFolder() = default;
  absl::Status OpenShards(const std::string& folder,
                          const std::string& index_path);
  absl::Status AddFile(const std::string& path);

  std::vector<std::unique_ptr<SafetensorsFile>> files_;
  std::map<std::string, const SafetensorsFile*> tensors_;
  // Names in the files of tensors that were given another.
  std::map<std::string, std::string> stored_names_;
};

// The name that a tensor or module of a multimodal checkpoint's text model has
// in a text model's own ("model.layers..."); none if it is of another part, or
// of a text model already.
std::optional<std::string> TextModelName(const std::string& name);

// The type that decodes the bytes of a safetensors dtype; none if it is not
// BF16, F16 or F32.
std::optional<quant::GgmlType> FloatType(const std::string& dtype);

}  // namespace onegrid::model

#endif  // SERVICES_MODEL_SAFETENSORS_FOLDER_H_
