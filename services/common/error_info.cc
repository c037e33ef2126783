#include "services/common/error_info.h"

#include <cstdint>
#include <optional>
#include <utility>

#include "absl/strings/cord.h"

namespace onegrid::common {
namespace {

// Wire format of google.rpc.ErrorInfo: every field is length-delimited.
constexpr int kReasonField = 1;
constexpr int kDomainField = 2;
constexpr int kMetadataField = 3;
constexpr int kMapKeyField = 1;
constexpr int kMapValueField = 2;

void AppendVarint(uint64_t value, std::string* out) {
  while (value >= 0x80) {
    out->push_back(static_cast<char>((value & 0x7f) | 0x80));
    value >>= 7;
  }
  out->push_back(static_cast<char>(value));
}

void AppendField(int number, absl::string_view value, std::string* out) {
  AppendVarint(static_cast<uint64_t>(number) << 3 | 2, out);
  AppendVarint(value.size(), out);
  out->append(value.data(), value.size());
}

bool ReadVarint(absl::string_view* in, uint64_t* value) {
  *value = 0;
  for (int shift = 0; shift < 64 && !in->empty(); shift += 7) {
    const uint8_t byte = static_cast<uint8_t>(in->front());
    in->remove_prefix(1);
    *value |= static_cast<uint64_t>(byte & 0x7f) << shift;
    if (byte < 0x80) return true;
  }
  return false;
}

// Reads the next field. False at the end or at bytes that are not ours.
bool ReadField(absl::string_view* in, int* number, absl::string_view* value) {
  uint64_t tag = 0;
  uint64_t size = 0;
  if (in->empty() || !ReadVarint(in, &tag) || (tag & 7) != 2) return false;
  if (!ReadVarint(in, &size) || size > in->size()) return false;
  *number = static_cast<int>(tag >> 3);
  *value = in->substr(0, size);
  in->remove_prefix(size);
  return true;
}

std::optional<std::string> Payload(const absl::Status& status) {
  std::optional<absl::Cord> cord;
  status.ForEachPayload([&](absl::string_view url, const absl::Cord& bytes) {
    if (url == kErrorInfoTypeUrl) cord = bytes;
  });
  if (!cord.has_value()) return std::nullopt;
  return std::string(*cord);
}

}  // namespace

absl::Status MakeError(absl::StatusCode code, absl::string_view reason,
                       absl::string_view message,
                       const std::map<std::string, std::string>& metadata) {
  absl::Status status(code, message);
  std::string payload;
  AppendField(kReasonField, reason, &payload);
  AppendField(kDomainField, kErrorDomain, &payload);
  for (const auto& [key, value] : metadata) {
    std::string entry;
    AppendField(kMapKeyField, key, &entry);
    AppendField(kMapValueField, value, &entry);
    AppendField(kMetadataField, entry, &payload);
  }
  status.SetPayload(kErrorInfoTypeUrl, absl::Cord(payload));
  return status;
}

std::string ErrorReason(const absl::Status& status) {
  const std::optional<std::string> payload = Payload(status);
  if (!payload.has_value()) return "";
  absl::string_view in = *payload;
  int number = 0;
  absl::string_view value;
  while (ReadField(&in, &number, &value)) {
    if (number == kReasonField) return std::string(value);
  }
  return "";
}

std::map<std::string, std::string> ErrorMetadata(const absl::Status& status) {
  std::map<std::string, std::string> metadata;
  const std::optional<std::string> payload = Payload(status);
  if (!payload.has_value()) return metadata;
  absl::string_view in = *payload;
  int number = 0;
  absl::string_view value;
  while (ReadField(&in, &number, &value)) {
    if (number != kMetadataField) continue;
    std::string entry_key;
    std::string entry_value;
    absl::string_view field;
    while (ReadField(&value, &number, &field)) {
      if (number == kMapKeyField) entry_key = std::string(field);
      if (number == kMapValueField) entry_value = std::string(field);
    }
    metadata[entry_key] = entry_value;
  }
  return metadata;
}

std::string StatusCodeName(absl::StatusCode code) {
  return absl::StatusCodeToString(code);
}

}  // namespace onegrid::common
