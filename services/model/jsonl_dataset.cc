#include "services/model/jsonl_dataset.h"

#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "services/common/error_info.h"
#include "services/model/dataset_format.h"

namespace onegrid::model {

absl::StatusOr<std::vector<Example>> ReadJsonl(const std::string& path) {
  ReadOptions options;
  options.format = DataFormat::kPromptCompletion;
  ASSIGN_OR_RETURN(RecordFile file, ReadRecords(path, options));
  std::vector<Example> examples;
  for (Record& record : file.records) {
    if (record.kind != Record::Kind::kPair) {
      const std::string problem = "\"prompt\" is not a string but array";
      return common::MakeError(
          absl::StatusCode::kInvalidArgument, "DATASET_SCHEMA_INVALID",
          absl::StrCat(path, ": line ", record.line, ": ", problem),
          {{"path", path},
           {"line", absl::StrCat(record.line)},
           {"problem", problem}});
    }
    examples.push_back(
        {std::move(record.prompt), std::move(record.completion), record.line});
  }
  return examples;
}

}  // namespace onegrid::model
