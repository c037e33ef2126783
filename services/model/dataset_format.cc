#include "services/model/dataset_format.h"

#include <algorithm>
#include <iterator>
#include <memory>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "nlohmann/json.hpp"
#include "services/common/error_info.h"
#include "services/model/mapped_file.h"
#include "services/model/record_parser.h"
#include "services/model/utf8.h"

namespace onegrid::model {
namespace {

// The names by DataFormat.
constexpr const char* kNames[] = {"prompt_completion", "messages", "text",
                                  "alpaca", "sharegpt"};

absl::Status LineError(const std::string& path, int64_t line,
                       const std::string& problem) {
  return common::MakeError(
      absl::StatusCode::kInvalidArgument, "DATASET_SCHEMA_INVALID",
      absl::StrCat(path, ": line ", line, ": ", problem),
      {{"path", path}, {"line", absl::StrCat(line)}, {"problem", problem}});
}

// Sets *object to the object on a line, or returns what is wrong.
std::string ParseObject(absl::string_view line, nlohmann::json* object) {
  if (!IsValidUtf8(line)) {
    return absl::StrCat("not UTF-8 at byte ", ValidUtf8Prefix(line) + 1,
                        " of the line");
  }
  *object = nlohmann::json::parse(line.begin(), line.end(), nullptr,
                                  /*allow_exceptions=*/false);
  if (object->is_discarded()) return "not JSON";
  if (!object->is_object()) {
    return absl::StrCat("not a JSON object but ", object->type_name());
  }
  return "";
}

// What is wrong when a record has not the keys of the file's format.
std::string FormatProblem(const nlohmann::json& object, DataFormat format) {
  const std::string missing = MissingKeys(object, format);
  if (missing.empty()) return "";
  const std::optional<DataFormat> other = DetectFormat(object);
  if (!other.has_value() || *other == format) return missing;
  return absl::StrCat(missing, ": the line has the format ", FormatName(*other),
                      ", the file ", FormatName(format));
}

}  // namespace

const char* FormatName(DataFormat format) {
  return kNames[static_cast<int>(format)];
}

absl::StatusOr<DataFormat> FormatByName(absl::string_view name) {
  for (size_t i = 0; i < std::size(kNames); ++i) {
    if (name == kNames[i]) return static_cast<DataFormat>(i);
  }
  const std::string known = absl::StrJoin(kNames, ", ");
  return common::MakeError(
      absl::StatusCode::kInvalidArgument, "UNKNOWN_DATA_FORMAT",
      absl::StrCat("\"", name, "\" is not a data format; known: ", known),
      {{"format", std::string(name)}, {"known", known}});
}

absl::StatusOr<RecordFile> ReadRecords(const std::string& path,
                                       const ReadOptions& options) {
  ASSIGN_OR_RETURN(const std::unique_ptr<MappedFile> file,
                   MappedFile::Open(path));
  absl::string_view rest(reinterpret_cast<const char*>(file->bytes().data()),
                         file->bytes().size());
  RecordFile out;
  out.format = options.format;
  for (int64_t number = 1; !rest.empty(); ++number) {
    if (options.records_max > 0 &&
        static_cast<int64_t>(out.records.size()) == options.records_max) {
      break;
    }
    const absl::string_view line = rest.substr(0, rest.find('\n'));
    rest.remove_prefix(std::min(rest.size(), line.size() + 1));
    if (absl::StripAsciiWhitespace(line).empty()) continue;
    nlohmann::json object;
    std::string problem = ParseObject(line, &object);
    if (problem.empty() && !out.format.has_value()) {
      out.format = DetectFormat(object);
      if (!out.format.has_value()) problem = NoFormatProblem();
    }
    if (problem.empty()) problem = FormatProblem(object, *out.format);
    if (!problem.empty()) return LineError(path, number, problem);
    Record record;
    record.line = number;
    problem = ParseRecord(object, *out.format, &record);
    if (problem.empty()) {
      out.records.push_back(std::move(record));
    } else if (options.drop_invalid) {
      out.dropped.push_back({number, std::move(problem)});
    } else {
      return LineError(path, number, problem);
    }
  }
  return out;
}

}  // namespace onegrid::model
