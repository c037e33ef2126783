#include "services/model/jsonl_dataset.h"

#include <algorithm>
#include <memory>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "nlohmann/json.hpp"
#include "services/common/error_info.h"
#include "services/model/mapped_file.h"
#include "services/model/utf8.h"

namespace onegrid::model {
namespace {

// Sets *out to the string at `key`, or returns what is wrong.
std::string ReadField(const nlohmann::json& object, const std::string& key,
                      std::string* out) {
  const auto it = object.find(key);
  if (it == object.end()) return absl::StrCat("no \"", key, "\"");
  if (!it->is_string()) {
    return absl::StrCat("\"", key, "\" is not a string but ", it->type_name());
  }
  *out = it->get<std::string>();
  return "";
}

// Fills `example` from one line, or returns what is wrong with it.
std::string ParseLine(absl::string_view line, Example* example) {
  if (!IsValidUtf8(line)) {
    return absl::StrCat("not UTF-8 at byte ", ValidUtf8Prefix(line) + 1,
                        " of the line");
  }
  const nlohmann::json object = nlohmann::json::parse(
      line.begin(), line.end(), nullptr, /*allow_exceptions=*/false);
  if (object.is_discarded()) return "not JSON";
  if (!object.is_object()) {
    return absl::StrCat("not a JSON object but ", object.type_name());
  }
  std::string problem = ReadField(object, "prompt", &example->prompt);
  if (problem.empty()) {
    problem = ReadField(object, "completion", &example->completion);
  }
  if (problem.empty() && example->completion.empty()) {
    problem = "\"completion\" is empty";
  }
  return problem;
}

}  // namespace

absl::StatusOr<std::vector<Example>> ReadJsonl(const std::string& path) {
  ASSIGN_OR_RETURN(const std::unique_ptr<MappedFile> file,
                   MappedFile::Open(path));
  absl::string_view rest(reinterpret_cast<const char*>(file->bytes().data()),
                         file->bytes().size());
  std::vector<Example> examples;
  for (int64_t number = 1; !rest.empty(); ++number) {
    const absl::string_view line = rest.substr(0, rest.find('\n'));
    rest.remove_prefix(std::min(rest.size(), line.size() + 1));
    if (absl::StripAsciiWhitespace(line).empty()) continue;
    Example example;
    example.line = number;
    const std::string problem = ParseLine(line, &example);
    if (!problem.empty()) {
      return common::MakeError(
          absl::StatusCode::kInvalidArgument, "DATASET_SCHEMA_INVALID",
          absl::StrCat(path, ": line ", number, ": ", problem),
          {{"path", path},
           {"line", absl::StrCat(number)},
           {"problem", problem}});
    }
    examples.push_back(std::move(example));
  }
  return examples;
}

}  // namespace onegrid::model
