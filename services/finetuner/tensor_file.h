// Safetensors files of LibTorch tensors.
#ifndef SERVICES_FINETUNER_TENSOR_FILE_H_
#define SERVICES_FINETUNER_TENSOR_FILE_H_

#include <ATen/ATen.h>

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "services/model/safetensors.h"

namespace onegrid::finetuner {

// Collects tensors of type float32, int64, int32, int8 or uint8 and writes them
// atomically. Keeps the tensors alive; they must not change until WriteTo.
class TensorFileWriter {
 public:
  absl::Status Add(const std::string& name, const at::Tensor& tensor);
  void SetMetadata(const std::map<std::string, std::string>& metadata);
  absl::Status WriteTo(const std::string& path) const;

 private:
  std::vector<at::Tensor> tensors_;
  model::SafetensorsWriter writer_;
};

// Reads what TensorFileWriter writes.
class TensorFile {
 public:
  static absl::StatusOr<TensorFile> Open(const std::string& path);

  // A copy. DataLoss (CORRUPT_FILE; file, tensor): missing, or of a type that
  // TensorFileWriter does not write.
  absl::StatusOr<at::Tensor> Get(const std::string& name) const;
  bool Has(const std::string& name) const;
  // Empty if there is no such key.
  std::string Metadata(const std::string& key) const;

 private:
  std::unique_ptr<model::SafetensorsFile> file_;
};

}  // namespace onegrid::finetuner

#endif  // SERVICES_FINETUNER_TENSOR_FILE_H_
