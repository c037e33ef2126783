#include "services/model/gguf_parser.h"

#include <algorithm>
#include <cstring>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "services/common/error_info.h"

namespace onegrid::model {
namespace {

constexpr uint32_t kVersion = 3;
constexpr size_t kNameBytesMax = 63;
constexpr uint32_t kDimsMax = 4;
// The fewest bytes one entry can take: an empty key, its type and one byte of
// value; an empty name, one dimension, type and offset.
constexpr uint64_t kMetadataEntryBytesMin = 8 + 4 + 1;
constexpr uint64_t kTensorEntryBytesMin = 8 + 4 + 8 + 4 + 8;

// A string of the file for an error message: bounded, printable.
std::string Printable(const std::string& text) {
  std::string result;
  for (const char c : text.substr(0, 80)) {
    result += (c >= 0x20 && c < 0x7f) ? c : '?';
  }
  return result;
}

}  // namespace

GgufParser::GgufParser(std::unique_ptr<MappedFile> file)
    : result_(new GgufFile()), bytes_(file->bytes()), path_(file->path()) {
  result_->path_ = path_;
  result_->files_.push_back(std::move(file));
}

absl::StatusOr<std::unique_ptr<GgufFile>> GgufParser::Parse() {
  RETURN_IF_ERROR(ParseHeader());
  RETURN_IF_ERROR(ParseMetadata());
  RETURN_IF_ERROR(ParseTensorTable());
  RETURN_IF_ERROR(PlaceTensors());
  return std::move(result_);
}

absl::Status GgufParser::Corrupt(const std::string& what) const {
  return CorruptFile(path_, what);
}

absl::Status GgufParser::Truncated(const std::string& where,
                                   uint64_t needed) const {
  return Corrupt(absl::StrCat("truncated GGUF file: ", where, " at byte ",
                              position_, " needs ", needed, " bytes, found ",
                              remaining()));
}

template <typename T>
absl::StatusOr<T> GgufParser::ReadScalar(const std::string& where) {
  if (remaining() < sizeof(T)) return Truncated(where, sizeof(T));
  if constexpr (std::is_same_v<T, bool>) {
    const uint8_t byte = bytes_[position_++];
    if (byte > 1) {
      return Corrupt(absl::StrCat(where, ": expected a bool (0 or 1), found ",
                                  static_cast<int>(byte)));
    }
    return byte == 1;
  } else {
    T value;
    std::memcpy(&value, bytes_.data() + position_, sizeof(T));
    position_ += sizeof(T);
    return value;
  }
}

absl::StatusOr<std::string> GgufParser::ReadString(const std::string& where) {
  ASSIGN_OR_RETURN(const uint64_t size, ReadScalar<uint64_t>(where));
  if (size > remaining()) return Truncated(where, size);
  std::string value(reinterpret_cast<const char*>(bytes_.data()) + position_,
                    size);
  position_ += size;
  return value;
}

template <typename T>
absl::StatusOr<GgufValue> GgufParser::ReadArrayOf(const std::string& where,
                                                  uint64_t count) {
  constexpr uint64_t kElementBytesMin =
      std::is_same_v<T, std::string> ? 8 : sizeof(T);
  if (count > remaining() / kElementBytesMin) {
    return Corrupt(absl::StrCat("truncated GGUF file: ", where, " declares ",
                                count, " array elements of at least ",
                                kElementBytesMin, " bytes, found ", remaining(),
                                " bytes"));
  }
  std::vector<T> values;
  values.reserve(count);
  for (uint64_t i = 0; i < count; ++i) {
    if constexpr (std::is_same_v<T, std::string>) {
      ASSIGN_OR_RETURN(std::string value, ReadString(where));
      values.push_back(std::move(value));
    } else {
      ASSIGN_OR_RETURN(const T value, ReadScalar<T>(where));
      values.push_back(value);
    }
  }
  return GgufValue(std::move(values));
}

absl::StatusOr<GgufValue> GgufParser::ReadArray(const std::string& where) {
  ASSIGN_OR_RETURN(const uint32_t type, ReadScalar<uint32_t>(where));
  ASSIGN_OR_RETURN(const uint64_t count, ReadScalar<uint64_t>(where));
  switch (static_cast<GgufValueType>(type)) {
    case GgufValueType::kU8:
      return ReadArrayOf<uint8_t>(where, count);
    case GgufValueType::kI8:
      return ReadArrayOf<int8_t>(where, count);
    case GgufValueType::kU16:
      return ReadArrayOf<uint16_t>(where, count);
    case GgufValueType::kI16:
      return ReadArrayOf<int16_t>(where, count);
    case GgufValueType::kU32:
      return ReadArrayOf<uint32_t>(where, count);
    case GgufValueType::kI32:
      return ReadArrayOf<int32_t>(where, count);
    case GgufValueType::kF32:
      return ReadArrayOf<float>(where, count);
    case GgufValueType::kBool:
      return ReadArrayOf<bool>(where, count);
    case GgufValueType::kString:
      return ReadArrayOf<std::string>(where, count);
    case GgufValueType::kU64:
      return ReadArrayOf<uint64_t>(where, count);
    case GgufValueType::kI64:
      return ReadArrayOf<int64_t>(where, count);
    case GgufValueType::kF64:
      return ReadArrayOf<double>(where, count);
    case GgufValueType::kArray:
      return Corrupt(absl::StrCat(where, ": arrays of arrays are not allowed"));
  }
  return Corrupt(
      absl::StrCat(where, ": expected an element type 0..12, found ", type));
}

absl::StatusOr<GgufValue> GgufParser::ReadValue(const std::string& where,
                                                uint32_t type) {
  switch (static_cast<GgufValueType>(type)) {
    case GgufValueType::kU8:
      return ReadScalar<uint8_t>(where);
    case GgufValueType::kI8:
      return ReadScalar<int8_t>(where);
    case GgufValueType::kU16:
      return ReadScalar<uint16_t>(where);
    case GgufValueType::kI16:
      return ReadScalar<int16_t>(where);
    case GgufValueType::kU32:
      return ReadScalar<uint32_t>(where);
    case GgufValueType::kI32:
      return ReadScalar<int32_t>(where);
    case GgufValueType::kF32:
      return ReadScalar<float>(where);
    case GgufValueType::kBool:
      return ReadScalar<bool>(where);
    case GgufValueType::kString:
      return ReadString(where);
    case GgufValueType::kU64:
      return ReadScalar<uint64_t>(where);
    case GgufValueType::kI64:
      return ReadScalar<int64_t>(where);
    case GgufValueType::kF64:
      return ReadScalar<double>(where);
    case GgufValueType::kArray:
      return ReadArray(where);
  }
  return Corrupt(
      absl::StrCat(where, ": expected a value type 0..12, found ", type));
}

absl::Status GgufParser::ParseHeader() {
  if (remaining() < 4 || std::memcmp(bytes_.data(), "GGUF", 4) != 0) {
    const std::string found(reinterpret_cast<const char*>(bytes_.data()),
                            std::min<uint64_t>(4, remaining()));
    return Corrupt(absl::StrCat(
        "not a GGUF file: expected the first bytes 'GGUF', found '",
        Printable(found), "'"));
  }
  position_ = 4;
  ASSIGN_OR_RETURN(const uint32_t version, ReadScalar<uint32_t>("version"));
  if (version != kVersion) {
    const bool swapped = version == 0x03000000u;
    return common::MakeError(
        absl::StatusCode::kUnimplemented, "UNSUPPORTED_FORMAT_VERSION",
        absl::StrCat(
            path_, ": expected GGUF version 3 (little-endian), found ",
            swapped ? "a big-endian file" : absl::StrCat("version ", version)),
        {{"path", path_}, {"expected", "3"}, {"found", absl::StrCat(version)}});
  }
  ASSIGN_OR_RETURN(tensor_count_, ReadScalar<uint64_t>("tensor count"));
  ASSIGN_OR_RETURN(metadata_count_, ReadScalar<uint64_t>("metadata count"));
  if (metadata_count_ > remaining() / kMetadataEntryBytesMin) {
    return Corrupt(absl::StrCat("header declares ", metadata_count_,
                                " metadata entries, more than fit in the ",
                                remaining(), " bytes that follow"));
  }
  if (tensor_count_ > remaining() / kTensorEntryBytesMin) {
    return Corrupt(absl::StrCat("header declares ", tensor_count_,
                                " tensors, more than fit in the ", remaining(),
                                " bytes that follow"));
  }
  return absl::OkStatus();
}

absl::Status GgufParser::ParseMetadata() {
  for (uint64_t i = 0; i < metadata_count_; ++i) {
    const std::string entry = absl::StrCat("metadata entry ", i);
    ASSIGN_OR_RETURN(std::string key, ReadString(entry + " (key)"));
    const std::string where = absl::StrCat(entry, " ('", Printable(key), "')");
    ASSIGN_OR_RETURN(const uint32_t type, ReadScalar<uint32_t>(where));
    ASSIGN_OR_RETURN(GgufValue value, ReadValue(where, type));
    if (!result_->metadata_.emplace(std::move(key), std::move(value)).second) {
      return Corrupt(absl::StrCat(where, ": duplicate key"));
    }
  }
  if (result_->Has("general.alignment")) {
    ASSIGN_OR_RETURN(alignment_, result_->GetU32("general.alignment"));
    if (alignment_ == 0 || (alignment_ & (alignment_ - 1)) != 0) {
      return Corrupt(absl::StrCat(
          "general.alignment: expected a power of two, found ", alignment_));
    }
  }
  return absl::OkStatus();
}

absl::Status GgufParser::ParseTensorTable() {
  result_->tensors_.reserve(tensor_count_);
  offsets_.reserve(tensor_count_);
  for (uint64_t i = 0; i < tensor_count_; ++i) {
    RETURN_IF_ERROR(ParseTensorInfo(i));
  }
  return absl::OkStatus();
}

absl::Status GgufParser::ParseTensorInfo(uint64_t index) {
  const std::string entry = absl::StrCat("tensor entry ", index);
  GgufFile::Tensor tensor;
  ASSIGN_OR_RETURN(tensor.name, ReadString(entry + " (name)"));
  const std::string where =
      absl::StrCat("tensor '", Printable(tensor.name), "'");
  if (tensor.name.size() > kNameBytesMax) {
    return Corrupt(absl::StrCat(where, ": expected a name of at most ",
                                kNameBytesMax, " bytes, found ",
                                tensor.name.size()));
  }
  ASSIGN_OR_RETURN(const uint32_t dims, ReadScalar<uint32_t>(where));
  if (dims < 1 || dims > kDimsMax) {
    return Corrupt(absl::StrCat(where, ": expected 1 to ", kDimsMax,
                                " dimensions, found ", dims));
  }
  int64_t elements = 1;
  for (uint32_t d = 0; d < dims; ++d) {
    ASSIGN_OR_RETURN(const int64_t size, ReadScalar<int64_t>(where));
    if (size <= 0 || __builtin_mul_overflow(elements, size, &elements)) {
      return Corrupt(absl::StrCat(
          where,
          ": expected positive dimensions with a product below 2^63, "
          "found ",
          absl::StrJoin(tensor.dims, " x "), tensor.dims.empty() ? "" : " x ",
          size));
    }
    tensor.dims.push_back(size);
  }
  ASSIGN_OR_RETURN(const uint32_t type, ReadScalar<uint32_t>(where));
  tensor.type = static_cast<quant::GgmlType>(type);
  if (!quant::TraitsOf(tensor.type).ok()) {
    return common::MakeError(absl::StatusCode::kUnimplemented,
                             "UNSUPPORTED_TENSOR_TYPE",
                             absl::StrCat(path_, ": ", where, " has ggml type ",
                                          type, ", which is not supported"),
                             {{"path", path_},
                              {"tensor", tensor.name},
                              {"found", absl::StrCat(type)}});
  }
  ASSIGN_OR_RETURN(const uint64_t offset, ReadScalar<uint64_t>(where));
  if (!result_->index_.emplace(tensor.name, index).second) {
    return Corrupt(absl::StrCat(where, ": duplicate tensor name"));
  }
  offsets_.push_back(offset);
  result_->tensors_.push_back(std::move(tensor));
  return absl::OkStatus();
}

absl::StatusOr<uint64_t> GgufParser::TensorBytes(
    const GgufFile::Tensor& tensor) const {
  const quant::GgmlTypeTraits traits = *quant::TraitsOf(tensor.type);
  if (tensor.cols() % traits.block_elements != 0) {
    return Corrupt(
        absl::StrCat("tensor '", Printable(tensor.name), "': a row of ",
                     tensor.cols(), " elements is not a whole number of ",
                     traits.name, " blocks of ", traits.block_elements));
  }
  const uint64_t blocks = tensor.cols() / traits.block_elements;
  uint64_t bytes = 0;
  if (__builtin_mul_overflow(blocks, static_cast<uint64_t>(tensor.rows()),
                             &bytes) ||
      __builtin_mul_overflow(bytes, static_cast<uint64_t>(traits.block_bytes),
                             &bytes)) {
    return Corrupt(absl::StrCat("tensor '", Printable(tensor.name),
                                "': its size overflows 64 bits"));
  }
  return bytes;
}

absl::Status GgufParser::PlaceTensors() {
  if (tensor_count_ == 0) return absl::OkStatus();
  // position_ is below 2^63 and alignment_ below 2^32: no overflow.
  const uint64_t start = (position_ + alignment_ - 1) / alignment_ * alignment_;
  if (start > bytes_.size()) return Truncated("tensor data", alignment_);
  const uint64_t data_bytes = bytes_.size() - start;
  uint64_t expected = 0;
  for (size_t i = 0; i < result_->tensors_.size(); ++i) {
    GgufFile::Tensor& tensor = result_->tensors_[i];
    const std::string where =
        absl::StrCat("tensor '", Printable(tensor.name), "'");
    if (offsets_[i] != expected) {
      return Corrupt(absl::StrCat(where, ": expected data offset ", expected,
                                  " (tensors in table order, aligned to ",
                                  alignment_, "), found ", offsets_[i]));
    }
    ASSIGN_OR_RETURN(const uint64_t size, TensorBytes(tensor));
    if (expected > data_bytes || size > data_bytes - expected) {
      return Corrupt(absl::StrCat("truncated GGUF file: ", where, " needs ",
                                  size, " bytes at data offset ", expected,
                                  ", but the data section has ", data_bytes));
    }
    tensor.data = bytes_.subspan(start + expected, size);
    expected += (size + alignment_ - 1) / alignment_ * alignment_;
  }
  return absl::OkStatus();
}

}  // namespace onegrid::model
