#include "services/model/packed_checker.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "services/common/error_info.h"
#include "services/model/mapped_file.h"

namespace onegrid::model {

using Tensor = SafetensorsFile::Tensor;

absl::Status PackedChecker::Corrupt(const std::string& tensor,
                                    const std::string& what) const {
  return CorruptFile(folder_, absl::StrCat("tensor '", tensor, "'", what));
}

absl::StatusOr<const Tensor*> PackedChecker::Find(
    const std::string& name) const {
  const Tensor* tensor = weights_.Find(name);
  if (tensor == nullptr) {
    return Corrupt(name, " is missing; config.json says that it is packed");
  }
  known_->insert(name);
  return tensor;
}

absl::StatusOr<const Tensor*> PackedChecker::Find(
    const std::string& name, const std::vector<int64_t>& shape) const {
  ASSIGN_OR_RETURN(const Tensor* tensor, Find(name));
  if (tensor->shape == shape) return tensor;
  return Corrupt(name, absl::StrCat(": expected shape [",
                                    absl::StrJoin(shape, ", "), "], found [",
                                    absl::StrJoin(tensor->shape, ", "), "]"));
}

absl::Status PackedChecker::Type(const std::string& name, const Tensor& tensor,
                                 bool good, absl::string_view expected) const {
  if (good) return absl::OkStatus();
  return Corrupt(name,
                 absl::StrCat(" is ", tensor.dtype, ", expected ", expected));
}

absl::Status PackedChecker::None(const std::string& name,
                                 absl::string_view what) const {
  if (weights_.Find(name) == nullptr) return absl::OkStatus();
  return common::MakeError(absl::StatusCode::kUnimplemented,
                           "UNSUPPORTED_QUANTIZATION",
                           absl::StrCat(folder_, ": tensor '", name,
                                        "': ", what, " are not supported"),
                           {{"path", folder_}, {"tensor", name}});
}

}  // namespace onegrid::model
