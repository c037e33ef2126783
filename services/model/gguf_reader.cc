#include "services/model/gguf_reader.h"

#include <limits>
#include <type_traits>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "services/common/error_info.h"
#include "services/common/file_version.h"
#include "services/model/gguf_parser.h"
#include "services/model/gguf_shards.h"

namespace onegrid::model {
namespace {

template <typename T>
struct IsVector : std::false_type {};
template <typename T>
struct IsVector<std::vector<T>> : std::true_type {};

absl::Status MissingKey(const std::string& path, const std::string& key) {
  return common::MakeError(
      absl::StatusCode::kNotFound, "CORRUPT_FILE",
      absl::StrCat(path, ": metadata key '", key, "' is missing"),
      {{"path", path}, {"key", key}});
}

absl::Status WrongType(const std::string& path, const std::string& key,
                       const std::string& expected, const GgufValue& found) {
  return common::MakeError(
      absl::StatusCode::kInvalidArgument, "CORRUPT_FILE",
      absl::StrCat(path, ": metadata key '", key, "': expected ", expected,
                   ", found ", GgufValueTypeName(found)),
      {{"path", path}, {"key", key}});
}

}  // namespace

std::string GgufValueTypeName(const GgufValue& value) {
  return std::visit(
      [](const auto& v) -> std::string {
        using T = std::decay_t<decltype(v)>;
        if constexpr (IsVector<T>::value) {
          return absl::StrCat(
              "array of ", GgufTypeName(GgufTypeOf<typename T::value_type>()));
        } else {
          return GgufTypeName(GgufTypeOf<T>());
        }
      },
      value);
}

absl::StatusOr<std::unique_ptr<GgufFile>> GgufFile::OpenOne(
    const std::string& path) {
  ASSIGN_OR_RETURN(std::unique_ptr<MappedFile> file, MappedFile::Open(path));
  return GgufParser(std::move(file)).Parse();
}

absl::StatusOr<std::unique_ptr<GgufFile>> GgufFile::Open(
    const std::string& path) {
  ASSIGN_OR_RETURN(std::unique_ptr<GgufFile> file, OpenOne(path));
  return GgufShards::Join(std::move(file));
}

std::vector<std::string> GgufFile::file_paths() const {
  std::vector<std::string> paths;
  for (const auto& file : files_) paths.push_back(file->path());
  return paths;
}

absl::Status GgufFile::CheckUnchanged() const {
  for (const auto& file : files_) {
    RETURN_IF_ERROR(common::CheckUnchanged(file->path(), file->version()));
  }
  return absl::OkStatus();
}

int64_t GgufFile::file_bytes() const {
  int64_t bytes = 0;
  for (const auto& file : files_) {
    bytes += static_cast<int64_t>(file->bytes().size());
  }
  return bytes;
}

void GgufFile::DropPages(absl::Span<const uint8_t> part) const {
  for (const auto& file : files_) {
    const absl::Span<const uint8_t> bytes = file->bytes();
    if (part.begin() >= bytes.begin() && part.end() <= bytes.end()) {
      file->DropPages(part);
    }
  }
}

const GgufFile::Tensor* GgufFile::Find(absl::string_view name) const {
  const auto it = index_.find(name);
  return it == index_.end() ? nullptr : &tensors_[it->second];
}

template <typename T>
absl::StatusOr<T> GgufFile::Get(const std::string& key,
                                const std::string& expected) const {
  const auto it = metadata_.find(key);
  if (it == metadata_.end()) return MissingKey(path(), key);
  const T* value = std::get_if<T>(&it->second);
  if (value == nullptr) return WrongType(path(), key, expected, it->second);
  return *value;
}

absl::StatusOr<uint32_t> GgufFile::GetU32(const std::string& key) const {
  const auto it = metadata_.find(key);
  if (it == metadata_.end()) return MissingKey(path(), key);
  bool fits = false;
  uint32_t result = 0;
  std::visit(
      [&](const auto& v) {
        using T = std::decay_t<decltype(v)>;
        if constexpr (std::is_integral_v<T> && !std::is_same_v<T, bool>) {
          fits = v >= 0 && static_cast<uint64_t>(v) <=
                               std::numeric_limits<uint32_t>::max();
          result = static_cast<uint32_t>(v);
        }
      },
      it->second);
  if (!fits)
    return WrongType(path(), key, "a 32-bit unsigned integer", it->second);
  return result;
}

absl::StatusOr<float> GgufFile::GetF32(const std::string& key) const {
  return Get<float>(key, "f32");
}

absl::StatusOr<bool> GgufFile::GetBool(const std::string& key) const {
  return Get<bool>(key, "bool");
}

absl::StatusOr<std::string> GgufFile::GetString(const std::string& key) const {
  return Get<std::string>(key, "string");
}

absl::StatusOr<std::vector<std::string>> GgufFile::GetStrings(
    const std::string& key) const {
  return Get<std::vector<std::string>>(key, "array of string");
}

absl::StatusOr<std::vector<float>> GgufFile::GetF32s(
    const std::string& key) const {
  return Get<std::vector<float>>(key, "array of f32");
}

absl::StatusOr<std::vector<int32_t>> GgufFile::GetI32s(
    const std::string& key) const {
  return Get<std::vector<int32_t>>(key, "array of i32");
}

}  // namespace onegrid::model
