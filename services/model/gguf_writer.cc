#include "services/model/gguf_writer.h"

#include <memory>
#include <type_traits>
#include <variant>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/string_view.h"
#include "services/common/error_info.h"
#include "services/model/atomic_file.h"

namespace onegrid::model {
namespace {

constexpr int64_t kAlignment = 32;
constexpr size_t kNameBytesMax = 63;
constexpr size_t kDimsMax = 4;

template <typename T>
void Put(T value, std::string* out) {
  static_assert(std::is_trivially_copyable_v<T>);
  out->append(reinterpret_cast<const char*>(&value), sizeof(value));
}

void PutString(absl::string_view value, std::string* out) {
  Put<uint64_t>(value.size(), out);
  out->append(value.data(), value.size());
}

template <typename T>
void PutScalar(const T& value, std::string* out) {
  if constexpr (std::is_same_v<T, std::string>) {
    PutString(value, out);
  } else if constexpr (std::is_same_v<T, bool>) {
    Put<uint8_t>(value ? 1 : 0, out);
  } else {
    Put(value, out);
  }
}

// The type number and the value, as they follow a key.
struct ValueWriter {
  std::string* out;

  template <typename T>
  void operator()(const T& value) const {
    Put<uint32_t>(static_cast<uint32_t>(GgufTypeOf<T>()), out);
    PutScalar(value, out);
  }
  template <typename T>
  void operator()(const std::vector<T>& values) const {
    Put<uint32_t>(static_cast<uint32_t>(GgufValueType::kArray), out);
    Put<uint32_t>(static_cast<uint32_t>(GgufTypeOf<T>()), out);
    Put<uint64_t>(values.size(), out);
    // Not by reference: vector<bool> has none.
    for (size_t i = 0; i < values.size(); ++i) {
      PutScalar<T>(values[i], out);
    }
  }
};

absl::Status InvalidTensor(const std::string& name, const std::string& what) {
  return common::MakeError(absl::StatusCode::kInvalidArgument, "INVALID_TENSOR",
                           absl::StrCat("tensor '", name, "': ", what),
                           {{"tensor", name}});
}

int64_t Padded(int64_t bytes) {
  return (bytes + kAlignment - 1) / kAlignment * kAlignment;
}

}  // namespace

void GgufWriter::Set(const std::string& key, GgufValue value) {
  for (auto& [existing, old] : metadata_) {
    if (existing == key) {
      old = std::move(value);
      return;
    }
  }
  metadata_.emplace_back(key, std::move(value));
}

absl::StatusOr<int64_t> GgufWriter::CheckTensor(
    const std::string& name, quant::GgmlType type,
    const std::vector<int64_t>& dims) const {
  if (name.empty() || name.size() > kNameBytesMax) {
    return InvalidTensor(name, absl::StrCat("expected a name of 1 to ",
                                            kNameBytesMax, " bytes"));
  }
  for (const Tensor& tensor : tensors_) {
    if (tensor.name == name) return InvalidTensor(name, "added twice");
  }
  if (dims.empty() || dims.size() > kDimsMax) {
    return InvalidTensor(
        name, absl::StrCat("expected 1 to ", kDimsMax, " dimensions, found ",
                           dims.size()));
  }
  int64_t elements = 1;
  for (const int64_t size : dims) {
    if (size <= 0 || __builtin_mul_overflow(elements, size, &elements)) {
      return InvalidTensor(
          name, absl::StrCat("bad dimensions ", absl::StrJoin(dims, " x ")));
    }
  }
  const auto row = quant::RowBytes(type, dims[0]);
  if (!row.ok())
    return InvalidTensor(name, std::string(row.status().message()));
  int64_t bytes = 0;
  if (__builtin_mul_overflow(*row, elements / dims[0], &bytes)) {
    return InvalidTensor(
        name, absl::StrCat("bad dimensions ", absl::StrJoin(dims, " x ")));
  }
  return bytes;
}

absl::Status GgufWriter::Add(Tensor tensor, int64_t found_bytes) {
  ASSIGN_OR_RETURN(tensor.bytes,
                   CheckTensor(tensor.name, tensor.type, tensor.dims));
  if (tensor.produce == nullptr && found_bytes != tensor.bytes) {
    return InvalidTensor(
        tensor.name,
        absl::StrCat("expected ", tensor.bytes, " bytes, found ", found_bytes));
  }
  tensors_.push_back(std::move(tensor));
  return absl::OkStatus();
}

absl::Status GgufWriter::AddTensor(const std::string& name,
                                   quant::GgmlType type,
                                   const std::vector<int64_t>& dims,
                                   absl::Span<const uint8_t> data) {
  return Add({name, type, dims, 0, {}, data, nullptr},
             static_cast<int64_t>(data.size()));
}

absl::Status GgufWriter::AddTensor(const std::string& name,
                                   quant::GgmlType type,
                                   const std::vector<int64_t>& dims,
                                   std::vector<uint8_t> data) {
  const auto bytes = static_cast<int64_t>(data.size());
  return Add({name, type, dims, 0, std::move(data), {}, nullptr}, bytes);
}

absl::Status GgufWriter::AddProduced(const std::string& name,
                                     quant::GgmlType type,
                                     const std::vector<int64_t>& dims,
                                     Producer produce) {
  return Add({name, type, dims, 0, {}, {}, std::move(produce)}, 0);
}

std::string GgufWriter::SerializeTables() const {
  std::string out = "GGUF";
  Put<uint32_t>(3, &out);
  Put<uint64_t>(tensors_.size(), &out);
  Put<uint64_t>(metadata_.size(), &out);
  for (const auto& [key, value] : metadata_) {
    PutString(key, &out);
    std::visit(ValueWriter{&out}, value);
  }
  int64_t offset = 0;
  for (const Tensor& tensor : tensors_) {
    PutString(tensor.name, &out);
    Put<uint32_t>(tensor.dims.size(), &out);
    for (const int64_t size : tensor.dims) Put<int64_t>(size, &out);
    Put<uint32_t>(static_cast<uint32_t>(tensor.type), &out);
    Put<uint64_t>(offset, &out);
    offset += Padded(tensor.bytes);
  }
  return out;
}

absl::Status GgufWriter::WriteTo(const std::string& path) const {
  bool has_architecture = false;
  for (const auto& [key, value] : metadata_) {
    if (key == "general.architecture") has_architecture = true;
  }
  if (!has_architecture) {
    return common::MakeError(
        absl::StatusCode::kInvalidArgument, "INVALID_METADATA",
        absl::StrCat(path, ": general.architecture is not set"),
        {{"path", path}, {"key", "general.architecture"}});
  }
  ASSIGN_OR_RETURN(const std::unique_ptr<AtomicFile> file,
                   AtomicFile::Create(path));
  RETURN_IF_ERROR(file->Append(SerializeTables()));
  RETURN_IF_ERROR(file->PadTo(kAlignment));
  for (const Tensor& tensor : tensors_) {
    if (tensor.produce == nullptr) {
      RETURN_IF_ERROR(
          file->Append(tensor.owned.empty() ? tensor.borrowed : tensor.owned));
    } else {
      int64_t bytes = 0;
      RETURN_IF_ERROR(
          tensor.produce([&](absl::Span<const uint8_t> part) -> absl::Status {
            bytes += static_cast<int64_t>(part.size());
            return file->Append(part);
          }));
      if (bytes != tensor.bytes) {
        return InvalidTensor(tensor.name,
                             absl::StrCat("expected ", tensor.bytes,
                                          " bytes, produced ", bytes));
      }
    }
    RETURN_IF_ERROR(file->PadTo(kAlignment));
  }
  return file->Commit();
}

}  // namespace onegrid::model
