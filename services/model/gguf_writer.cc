#include "services/model/gguf_writer.h"

#include <memory>
#include <type_traits>
#include <variant>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/string_view.h"
#include "services/common/error_info.h"
#include "services/model/atomic_file.h"
#include "services/model/shard_plan.h"

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

using Pairs = std::vector<std::pair<std::string, GgufValue>>;

void Replace(const std::string& key, GgufValue value, Pairs* metadata) {
  for (auto& [existing, old] : *metadata) {
    if (existing == key) {
      old = std::move(value);
      return;
    }
  }
  metadata->emplace_back(key, std::move(value));
}

std::string SerializeHeader(const Pairs& metadata, size_t tensors) {
  std::string out = "GGUF";
  Put<uint32_t>(3, &out);
  Put<uint64_t>(tensors, &out);
  Put<uint64_t>(metadata.size(), &out);
  for (const auto& [key, value] : metadata) {
    PutString(key, &out);
    std::visit(ValueWriter{&out}, value);
  }
  return out;
}

}  // namespace

void GgufWriter::Set(const std::string& key, GgufValue value) {
  Replace(key, std::move(value), &metadata_);
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

absl::Status GgufWriter::CheckMetadata(const std::string& path) const {
  for (const auto& [key, value] : metadata_) {
    if (key == "general.architecture") return absl::OkStatus();
  }
  return common::MakeError(
      absl::StatusCode::kInvalidArgument, "INVALID_METADATA",
      absl::StrCat(path, ": general.architecture is not set"),
      {{"path", path}, {"key", "general.architecture"}});
}

absl::StatusOr<std::unique_ptr<AtomicFile>> GgufWriter::Write(
    const std::string& path, const Metadata& metadata,
    absl::Span<const Tensor> tensors) {
  ASSIGN_OR_RETURN(std::unique_ptr<AtomicFile> file, AtomicFile::Create(path));
  std::string tables = SerializeHeader(metadata, tensors.size());
  int64_t offset = 0;
  for (const Tensor& tensor : tensors) {
    PutString(tensor.name, &tables);
    Put<uint32_t>(tensor.dims.size(), &tables);
    for (const int64_t size : tensor.dims) Put<int64_t>(size, &tables);
    Put<uint32_t>(static_cast<uint32_t>(tensor.type), &tables);
    Put<uint64_t>(offset, &tables);
    offset += Padded(tensor.bytes);
  }
  RETURN_IF_ERROR(file->Append(tables));
  RETURN_IF_ERROR(file->PadTo(kAlignment));
  for (const Tensor& tensor : tensors) {
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
  return file;
}

absl::Status GgufWriter::WriteTo(const std::string& path) const {
  RETURN_IF_ERROR(CheckMetadata(path));
  ASSIGN_OR_RETURN(const std::unique_ptr<AtomicFile> file,
                   Write(path, metadata_, tensors_));
  return file->Commit();
}

absl::StatusOr<std::vector<std::string>> GgufWriter::WriteShards(
    const std::string& folder, const std::string& stem,
    int64_t max_shard_bytes) const {
  std::vector<int64_t> bytes;
  for (const Tensor& tensor : tensors_) bytes.push_back(Padded(tensor.bytes));
  ASSIGN_OR_RETURN(std::vector<size_t> begins,
                   PlanShards(bytes, max_shard_bytes));
  const size_t count = begins.size();
  begins.push_back(tensors_.size());
  std::vector<std::string> names;
  std::vector<std::unique_ptr<AtomicFile>> files;
  for (size_t i = 0; i < count; ++i) {
    names.push_back(ShardName(stem, i, count, ".gguf"));
    const std::string path = absl::StrCat(folder, "/", names.back());
    Metadata metadata;
    if (i == 0) {
      RETURN_IF_ERROR(CheckMetadata(path));
      metadata = metadata_;
    }
    if (count > 1) {
      // In the types and the order of gguf-split, so that its bytes are ours.
      Replace("split.no", static_cast<uint16_t>(i), &metadata);
      Replace("split.tensors.count", static_cast<int32_t>(tensors_.size()),
              &metadata);
      Replace("split.count", static_cast<uint16_t>(count), &metadata);
    }
    ASSIGN_OR_RETURN(files.emplace_back(),
                     Write(path, metadata,
                           absl::MakeConstSpan(tensors_).subspan(
                               begins[i], begins[i + 1] - begins[i])));
  }
  RETURN_IF_ERROR(CommitAll(files));
  RETURN_IF_ERROR(RemoveOtherShards(folder, stem, ".gguf", names));
  return names;
}

}  // namespace onegrid::model
