#include "services/evaluator/probe_file.h"

#include <cstdint>

#include "absl/strings/str_cat.h"
#include "services/common/error_info.h"

namespace onegrid::evaluator {
namespace {

constexpr char kFormat[] = "onegrid.probe.v1";

absl::Status Corrupt(const std::string& path, absl::string_view item,
                     absl::string_view what) {
  return common::MakeError(absl::StatusCode::kInvalidArgument, "CORRUPT_FILE",
                           absl::StrCat(path, ": ", item, " ", what),
                           {{"item", std::string(item)}});
}

// The tensor's values, in place: safetensors aligns 4-byte types to 4 bytes
// when its header is padded, which is checked.
template <typename T>
absl::StatusOr<absl::Span<const T>> Values(const model::SafetensorsFile& file,
                                           const std::string& path,
                                           const std::string& name,
                                           const std::string& dtype,
                                           size_t dimensions) {
  const auto* tensor = file.Find(name);
  if (tensor == nullptr) return Corrupt(path, name, "is missing");
  if (tensor->dtype != dtype || tensor->shape.size() != dimensions ||
      reinterpret_cast<uintptr_t>(tensor->data.data()) % sizeof(T) != 0) {
    return Corrupt(path, name,
                   absl::StrCat("should be ", dtype, " with ", dimensions,
                                " dimensions, aligned"));
  }
  if (dimensions == 2 && tensor->shape[1] != kProbeTop) {
    return Corrupt(path, name, absl::StrCat("should be ", kProbeTop, " wide"));
  }
  return absl::MakeConstSpan(reinterpret_cast<const T*>(tensor->data.data()),
                             tensor->data.size() / sizeof(T));
}

}  // namespace

absl::StatusOr<std::unique_ptr<ProbeFile>> ProbeFile::Open(
    const std::string& path) {
  auto probe = std::unique_ptr<ProbeFile>(new ProbeFile);
  ASSIGN_OR_RETURN(probe->file_, model::SafetensorsFile::Open(path));
  const model::SafetensorsFile& file = *probe->file_;
  const auto format = file.metadata().find("format");
  if (format == file.metadata().end() || format->second != kFormat) {
    return Corrupt(path, "format", absl::StrCat("should be \"", kFormat, "\""));
  }
  ASSIGN_OR_RETURN(probe->tokens_,
                   Values<int32_t>(file, path, "token_ids", "I32", 1));
  ASSIGN_OR_RETURN(probe->starts_,
                   Values<int32_t>(file, path, "sequence_starts", "I32", 1));
  ASSIGN_OR_RETURN(probe->top_ids_,
                   Values<int32_t>(file, path, "top_ids", "I32", 2));
  ASSIGN_OR_RETURN(probe->top_logprobs_,
                   Values<float>(file, path, "top_logprobs", "F32", 2));
  RETURN_IF_ERROR(probe->Check(path));
  return probe;
}

absl::Status ProbeFile::Check(const std::string& path) const {
  if (starts_.size() < 2 || starts_.front() != 0 ||
      starts_.back() != static_cast<int64_t>(tokens_.size())) {
    return Corrupt(path, "sequence_starts",
                   absl::StrCat("should go from 0 to ", tokens_.size()));
  }
  for (size_t s = 1; s < starts_.size(); ++s) {
    if (starts_[s] - int64_t{starts_[s - 1]} < 2) {
      return Corrupt(
          path, "sequence_starts",
          absl::StrCat("gives sequence ", s - 1, " fewer than two tokens"));
    }
  }
  const size_t expected = static_cast<size_t>(positions()) * kProbeTop;
  if (top_ids_.size() != expected || top_logprobs_.size() != expected) {
    return Corrupt(path, "top_ids and top_logprobs",
                   absl::StrCat("should have ", positions(), " rows"));
  }
  return absl::OkStatus();
}

absl::Span<const int32_t> ProbeFile::tokens(int s) const {
  return tokens_.subspan(starts_[s], starts_[s + 1] - starts_[s]);
}

absl::Span<const int32_t> ProbeFile::top_ids(int s) const {
  return top_ids_.subspan(FirstPosition(s) * kProbeTop,
                          (tokens(s).size() - 1) * kProbeTop);
}

absl::Span<const float> ProbeFile::top_logprobs(int s) const {
  return top_logprobs_.subspan(FirstPosition(s) * kProbeTop,
                               (tokens(s).size() - 1) * kProbeTop);
}

}  // namespace onegrid::evaluator
