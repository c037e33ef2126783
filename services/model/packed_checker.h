#ifndef SERVICES_MODEL_PACKED_CHECKER_H_
#define SERVICES_MODEL_PACKED_CHECKER_H_

#include <cstdint>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "services/model/safetensors_folder.h"

namespace onegrid::model {

// Finds and checks the tensors of packed modules. The arguments must outlive
// it. Errors name folder and tensor; DataLoss (CORRUPT_FILE) unless said.
class PackedChecker {
 public:
  // The names of tensors found are added to `known`.
  PackedChecker(const SafetensorsFolder& weights, const std::string& folder,
                std::set<std::string>* known)
      : weights_(weights), folder_(folder), known_(known) {}

  absl::Status Corrupt(const std::string& tensor,
                       const std::string& what) const;
  // A tensor that must be there.
  absl::StatusOr<const SafetensorsFile::Tensor*> Find(
      const std::string& name) const;
  // The same, of this shape.
  absl::StatusOr<const SafetensorsFile::Tensor*> Find(
      const std::string& name, const std::vector<int64_t>& shape) const;
  // That its type, if not `good`, is not the expected one.
  absl::Status Type(const std::string& name,
                    const SafetensorsFile::Tensor& tensor, bool good,
                    absl::string_view expected) const;
  // Unimplemented (UNSUPPORTED_QUANTIZATION) if there is this tensor; `what`
  // says what it holds, in the plural.
  absl::Status None(const std::string& name, absl::string_view what) const;

 private:
  const SafetensorsFolder& weights_;
  const std::string& folder_;
  std::set<std::string>* known_;
};

}  // namespace onegrid::model

#endif  // SERVICES_MODEL_PACKED_CHECKER_H_
