#include "services/model/safetensors.h"

#include <algorithm>
#include <cstring>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "nlohmann/json.hpp"
#include "services/common/error_info.h"
#include "services/model/atomic_file.h"
#include "services/model/shard_plan.h"

namespace onegrid::model {
namespace {

using Json = nlohmann::json;

// Hugging Face's own limit on the header.
constexpr uint64_t kHeaderBytesMax = 100'000'000;
constexpr char kMetadataKey[] = "__metadata__";

// Bytes of one element, 0 for an unknown dtype.
int64_t ElementBytes(absl::string_view dtype) {
  if (dtype == "BOOL" || dtype == "U8" || dtype == "I8") return 1;
  if (dtype == "F8_E4M3" || dtype == "F8_E5M2") return 1;
  if (dtype == "F16" || dtype == "BF16" || dtype == "I16" || dtype == "U16") {
    return 2;
  }
  if (dtype == "F32" || dtype == "I32" || dtype == "U32") return 4;
  if (dtype == "F64" || dtype == "I64" || dtype == "U64") return 8;
  return 0;
}

// False if a dimension is negative or the product overflows.
bool TensorBytes(const std::vector<int64_t>& shape, int64_t element_bytes,
                 int64_t* bytes) {
  *bytes = element_bytes;
  for (const int64_t size : shape) {
    if (size < 0 || __builtin_mul_overflow(*bytes, size, bytes)) return false;
  }
  return true;
}

// Parses the header; duplicate names and nesting that no header has make it
// fail. Returns a discarded value then.
Json ParseJson(absl::string_view text, std::string* problem) {
  std::set<std::string> names;
  const auto check = [&](int depth, Json::parse_event_t event, Json& parsed) {
    if (depth > 3) *problem = "the header is nested too deeply";
    if (event == Json::parse_event_t::key && depth == 1 &&
        !names.insert(parsed.get<std::string>()).second) {
      *problem =
          absl::StrCat("duplicate name '", parsed.get<std::string>(), "'");
    }
    return problem->empty();
  };
  Json json = Json::parse(text.begin(), text.end(), check,
                          /*allow_exceptions=*/false);
  if (problem->empty() && !json.is_object()) {
    *problem = "the header is not a JSON object";
  }
  return json;
}

// Reads a JSON array of non-negative integers.
bool ReadIntegers(const Json& json, std::vector<int64_t>* out) {
  if (!json.is_array()) return false;
  for (const Json& element : json) {
    if (!element.is_number_unsigned()) return false;
    const uint64_t value = element.get<uint64_t>();
    if (value > static_cast<uint64_t>(INT64_MAX)) return false;
    out->push_back(static_cast<int64_t>(value));
  }
  return true;
}

}  // namespace

absl::StatusOr<std::unique_ptr<SafetensorsFile>> SafetensorsFile::Open(
    const std::string& path) {
  std::unique_ptr<SafetensorsFile> result(new SafetensorsFile());
  ASSIGN_OR_RETURN(result->file_, MappedFile::Open(path));
  RETURN_IF_ERROR(result->Parse());
  return result;
}

absl::Status SafetensorsFile::Parse() {
  const absl::Span<const uint8_t> bytes = file_->bytes();
  if (bytes.size() < 8) {
    return CorruptFile(path(), absl::StrCat("not a safetensors file: expected "
                                            "at least 8 bytes, found ",
                                            bytes.size()));
  }
  uint64_t header_bytes;
  std::memcpy(&header_bytes, bytes.data(), 8);
  if (header_bytes > kHeaderBytesMax || header_bytes > bytes.size() - 8) {
    return CorruptFile(
        path(), absl::StrCat("not a safetensors file, or truncated: the header "
                             "declares ",
                             header_bytes, " bytes, found ", bytes.size() - 8,
                             " (limit ", kHeaderBytesMax, ")"));
  }
  const absl::string_view header(
      reinterpret_cast<const char*>(bytes.data()) + 8, header_bytes);
  const absl::Span<const uint8_t> data = bytes.subspan(8 + header_bytes);
  RETURN_IF_ERROR(ParseHeader(header, data));
  return CheckCoverage(data.size());
}

absl::Status SafetensorsFile::ParseHeader(absl::string_view header,
                                          absl::Span<const uint8_t> data) {
  std::string problem;
  const Json json = ParseJson(header, &problem);
  if (!problem.empty()) return CorruptFile(path(), problem);
  for (const auto& [name, entry] : json.items()) {
    if (name == kMetadataKey) {
      if (!entry.is_object()) {
        return CorruptFile(path(), "__metadata__ is not a JSON object");
      }
      for (const auto& [key, value] : entry.items()) {
        if (!value.is_string()) {
          return CorruptFile(path(), absl::StrCat("__metadata__ value of '",
                                                  key, "' is not a string"));
        }
        metadata_[key] = value.get<std::string>();
      }
      continue;
    }
    const std::string where = absl::StrCat("tensor '", name, "'");
    Tensor tensor;
    std::vector<int64_t> offsets;
    if (!entry.is_object() || !entry.contains("dtype") ||
        !entry["dtype"].is_string() || !entry.contains("shape") ||
        !ReadIntegers(entry["shape"], &tensor.shape) ||
        !entry.contains("data_offsets") ||
        !ReadIntegers(entry["data_offsets"], &offsets) || offsets.size() != 2) {
      return CorruptFile(path(), absl::StrCat(where,
                                              ": expected dtype, shape "
                                              "and two data_offsets"));
    }
    tensor.dtype = entry["dtype"].get<std::string>();
    const int64_t element_bytes = ElementBytes(tensor.dtype);
    if (element_bytes == 0) {
      return common::MakeError(
          absl::StatusCode::kUnimplemented, "UNSUPPORTED_TENSOR_TYPE",
          absl::StrCat(path(), ": ", where, " has dtype '", tensor.dtype,
                       "', which is not supported"),
          {{"path", path()}, {"tensor", name}, {"found", tensor.dtype}});
    }
    int64_t expected = 0;
    const int64_t begin = offsets[0];
    const int64_t end = offsets[1];
    if (!TensorBytes(tensor.shape, element_bytes, &expected) || begin > end ||
        end - begin != expected) {
      return CorruptFile(
          path(),
          absl::StrCat(where, ": shape [", absl::StrJoin(tensor.shape, ", "),
                       "] of ", tensor.dtype, " does not match data_offsets [",
                       begin, ", ", end, "]"));
    }
    if (end > static_cast<int64_t>(data.size())) {
      return CorruptFile(path(), absl::StrCat("truncated safetensors file: ",
                                              where, " ends at data byte ", end,
                                              ", found ", data.size()));
    }
    tensor.data = data.subspan(begin, expected);
    tensors_.emplace(name, std::move(tensor));
  }
  return absl::OkStatus();
}

absl::Status SafetensorsFile::CheckCoverage(int64_t data_bytes) const {
  std::vector<absl::Span<const uint8_t>> spans;
  for (const auto& [name, tensor] : tensors_) {
    if (!tensor.data.empty()) spans.push_back(tensor.data);
  }
  std::sort(spans.begin(), spans.end(),
            [](const auto& a, const auto& b) { return a.data() < b.data(); });
  const uint8_t* end = file_->bytes().data() + file_->bytes().size();
  const uint8_t* next = end - data_bytes;
  for (const absl::Span<const uint8_t> span : spans) {
    if (span.data() != next) {
      return CorruptFile(path(),
                         absl::StrCat("tensors overlap or leave a gap at data "
                                      "byte ",
                                      data_bytes - (end - next)));
    }
    next = span.data() + span.size();
  }
  if (next != end) {
    return CorruptFile(path(), absl::StrCat(end - next,
                                            " bytes of data belong to no "
                                            "tensor"));
  }
  return absl::OkStatus();
}

const SafetensorsFile::Tensor* SafetensorsFile::Find(
    const std::string& name) const {
  const auto it = tensors_.find(name);
  return it == tensors_.end() ? nullptr : &it->second;
}

std::vector<std::string> SafetensorsFile::names() const {
  std::vector<std::string> result;
  for (const auto& [name, tensor] : tensors_) result.push_back(name);
  return result;
}

namespace {

absl::Status InvalidTensor(const std::string& name, const std::string& what) {
  return common::MakeError(absl::StatusCode::kInvalidArgument, "INVALID_TENSOR",
                           absl::StrCat("tensor '", name, "': ", what),
                           {{"tensor", name}});
}

}  // namespace

absl::Status SafetensorsWriter::AddTensor(Tensor tensor, int64_t found_bytes) {
  std::string what;
  const int64_t element = ElementBytes(tensor.dtype);
  if (tensor.name.empty() || tensor.name == kMetadataKey) {
    what = "not a name for a tensor";
  } else if (element == 0) {
    what = absl::StrCat("unknown dtype '", tensor.dtype, "'");
  } else if (!TensorBytes(tensor.shape, element, &tensor.bytes) ||
             (found_bytes >= 0 && tensor.bytes != found_bytes)) {
    what =
        absl::StrCat("shape [", absl::StrJoin(tensor.shape, ", "), "] of ",
                     tensor.dtype, " does not match ", found_bytes, " bytes");
  }
  for (const Tensor& other : tensors_) {
    if (other.name == tensor.name) what = "added twice";
  }
  if (!what.empty()) return InvalidTensor(tensor.name, what);
  tensors_.push_back(std::move(tensor));
  return absl::OkStatus();
}

absl::Status SafetensorsWriter::Add(const std::string& name,
                                    const std::string& dtype,
                                    const std::vector<int64_t>& shape,
                                    absl::Span<const uint8_t> data) {
  return AddTensor({name, dtype, shape, 0, {}, data, nullptr},
                   static_cast<int64_t>(data.size()));
}

absl::Status SafetensorsWriter::Add(const std::string& name,
                                    const std::string& dtype,
                                    const std::vector<int64_t>& shape,
                                    std::vector<uint8_t> data) {
  const auto bytes = static_cast<int64_t>(data.size());
  return AddTensor({name, dtype, shape, 0, std::move(data), {}, nullptr},
                   bytes);
}

absl::Status SafetensorsWriter::AddProduced(const std::string& name,
                                            const std::string& dtype,
                                            const std::vector<int64_t>& shape,
                                            Producer produce) {
  return AddTensor({name, dtype, shape, 0, {}, {}, std::move(produce)}, -1);
}

void SafetensorsWriter::SetMetadata(const std::string& key,
                                    const std::string& value) {
  metadata_[key] = value;
}

absl::StatusOr<std::unique_ptr<AtomicFile>> SafetensorsWriter::Write(
    const std::string& path, absl::Span<const Tensor> tensors) const {
  nlohmann::ordered_json header = nlohmann::ordered_json::object();
  if (!metadata_.empty()) header[kMetadataKey] = metadata_;
  int64_t offset = 0;
  for (const Tensor& tensor : tensors) {
    const int64_t end = offset + tensor.bytes;
    header[tensor.name] = {{"dtype", tensor.dtype},
                           {"shape", tensor.shape},
                           {"data_offsets", {offset, end}}};
    offset = end;
  }
  std::string text =
      header.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  text.append((8 - text.size() % 8) % 8, ' ');
  const uint64_t size = text.size();
  ASSIGN_OR_RETURN(std::unique_ptr<AtomicFile> file, AtomicFile::Create(path));
  RETURN_IF_ERROR(file->Append(absl::MakeConstSpan(
      reinterpret_cast<const uint8_t*>(&size), sizeof(size))));
  RETURN_IF_ERROR(file->Append(text));
  for (const Tensor& tensor : tensors) {
    if (tensor.produce == nullptr) {
      RETURN_IF_ERROR(
          file->Append(tensor.owned.empty() ? tensor.borrowed : tensor.owned));
      continue;
    }
    int64_t bytes = 0;
    RETURN_IF_ERROR(
        tensor.produce([&](absl::Span<const uint8_t> part) -> absl::Status {
          bytes += static_cast<int64_t>(part.size());
          return file->Append(part);
        }));
    if (bytes != tensor.bytes) {
      return InvalidTensor(
          tensor.name,
          absl::StrCat("expected ", tensor.bytes, " bytes, produced ", bytes));
    }
  }
  return file;
}

absl::Status SafetensorsWriter::WriteTo(const std::string& path) const {
  ASSIGN_OR_RETURN(const std::unique_ptr<AtomicFile> file,
                   Write(path, tensors_));
  return file->Commit();
}

absl::StatusOr<std::vector<std::string>> SafetensorsWriter::WriteShards(
    const std::string& folder, const std::string& stem,
    int64_t max_shard_bytes) const {
  constexpr char kExtension[] = ".safetensors";
  constexpr char kIndexExtension[] = ".safetensors.index.json";
  std::vector<int64_t> bytes;
  for (const Tensor& tensor : tensors_) bytes.push_back(tensor.bytes);
  ASSIGN_OR_RETURN(std::vector<size_t> begins,
                   PlanShards(bytes, max_shard_bytes));
  const size_t count = begins.size();
  begins.push_back(tensors_.size());
  std::vector<std::string> names;
  std::vector<std::unique_ptr<AtomicFile>> files;
  std::map<std::string, std::string> weight_map;
  int64_t total_bytes = 0;
  for (size_t i = 0; i < count; ++i) {
    names.push_back(ShardName(stem, i, count, kExtension));
    const auto part = absl::MakeConstSpan(tensors_).subspan(
        begins[i], begins[i + 1] - begins[i]);
    for (const Tensor& tensor : part) {
      weight_map[tensor.name] = names.back();
      total_bytes += tensor.bytes;
    }
    ASSIGN_OR_RETURN(files.emplace_back(),
                     Write(absl::StrCat(folder, "/", names.back()), part));
  }
  if (count > 1) {
    const Json index = {{"metadata", {{"total_size", total_bytes}}},
                        {"weight_map", weight_map}};
    ASSIGN_OR_RETURN(
        files.emplace_back(),
        AtomicFile::Create(absl::StrCat(folder, "/", stem, kIndexExtension)));
    RETURN_IF_ERROR(files.back()->Append(
        index.dump(2, ' ', false, Json::error_handler_t::replace) + "\n"));
    names.push_back(absl::StrCat(stem, kIndexExtension));
  }
  RETURN_IF_ERROR(CommitAll(files));
  for (const char* extension : {kExtension, kIndexExtension}) {
    RETURN_IF_ERROR(RemoveOtherShards(folder, stem, extension, names));
  }
  return names;
}

}  // namespace onegrid::model
