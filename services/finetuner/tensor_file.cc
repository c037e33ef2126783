#include "services/finetuner/tensor_file.h"

#include <cstdint>
#include <cstring>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "services/common/error_info.h"

namespace onegrid::finetuner {
namespace {

struct TypeName {
  at::ScalarType type;
  const char* name;
};
constexpr TypeName kTypes[] = {{at::kFloat, "F32"},
                               {at::kLong, "I64"},
                               {at::kInt, "I32"},
                               {at::kChar, "I8"},
                               {at::kByte, "U8"}};

absl::Status Corrupt(const std::string& path, const std::string& tensor,
                     const std::string& problem) {
  return common::MakeError(
      absl::StatusCode::kDataLoss, "CORRUPT_FILE",
      absl::StrCat(path, ": tensor ", tensor, " ", problem),
      {{"file", path}, {"tensor", tensor}});
}

}  // namespace

absl::Status TensorFileWriter::Add(const std::string& name,
                                   const at::Tensor& tensor) {
  for (const TypeName& type : kTypes) {
    if (type.type != tensor.scalar_type()) continue;
    const at::Tensor contiguous = tensor.contiguous();
    tensors_.push_back(contiguous);
    return writer_.Add(name, type.name, contiguous.sizes().vec(),
                       absl::MakeConstSpan(static_cast<const uint8_t*>(
                                               contiguous.const_data_ptr()),
                                           contiguous.nbytes()));
  }
  return absl::InternalError(
      absl::StrCat("tensor ", name, " has a type that is not written"));
}

void TensorFileWriter::SetMetadata(
    const std::map<std::string, std::string>& metadata) {
  for (const auto& [key, value] : metadata) writer_.SetMetadata(key, value);
}

absl::Status TensorFileWriter::WriteTo(const std::string& path) const {
  return writer_.WriteTo(path);
}

absl::StatusOr<TensorFile> TensorFile::Open(const std::string& path) {
  TensorFile file;
  ASSIGN_OR_RETURN(file.file_, model::SafetensorsFile::Open(path));
  return file;
}

absl::StatusOr<at::Tensor> TensorFile::Get(const std::string& name) const {
  const model::SafetensorsFile::Tensor* found = file_->Find(name);
  if (found == nullptr) return Corrupt(file_->path(), name, "is missing");
  for (const TypeName& type : kTypes) {
    if (found->dtype != type.name) continue;
    at::Tensor tensor = at::empty(found->shape, type.type);
    if (tensor.nbytes() != found->data.size()) break;
    std::memcpy(tensor.mutable_data_ptr(), found->data.data(),
                found->data.size());
    return tensor;
  }
  return Corrupt(file_->path(), name,
                 absl::StrCat("has unexpected type ", found->dtype));
}

bool TensorFile::Has(const std::string& name) const {
  return file_->Find(name) != nullptr;
}

std::string TensorFile::Metadata(const std::string& key) const {
  const auto found = file_->metadata().find(key);
  return found == file_->metadata().end() ? std::string() : found->second;
}

}  // namespace onegrid::finetuner
