// Datasets of JSON lines, in the formats that fine-tuning data comes in:
//
//   prompt_completion  {"prompt": P, "completion": C}, both strings or both
//                      lists of messages
//   messages           {"messages": [{"role": R, "content": "..."}, ...]},
//                      R one of system, user, assistant
//   text               {"text": "..."}
//   alpaca             {"instruction": "...", "output": "..."} and perhaps
//                      "input" (a line after the instruction), "system",
//                      "history": [[instruction, output], ...]
//   sharegpt           {"conversations": [{"from": F, "value": "..."}, ...]}
//                      and perhaps "system"; F one of system, human, gpt or
//                      the roles of messages
//
// Other keys of a line are ignored, and lines of nothing but spaces skipped.
#ifndef SERVICES_MODEL_DATASET_FORMAT_H_
#define SERVICES_MODEL_DATASET_FORMAT_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "services/model/chat_turns.h"

namespace onegrid::model {

enum class DataFormat {
  kPromptCompletion,
  kMessages,
  kText,
  kAlpaca,
  kShareGpt,
};

// "prompt_completion", ...
const char* FormatName(DataFormat format);
// InvalidArgument (UNKNOWN_DATA_FORMAT; format, known) for another name.
absl::StatusOr<DataFormat> FormatByName(absl::string_view name);

// One line, whatever its format: one of three kinds.
struct Record {
  enum class Kind {
    kPair,  // prompt, completion
    kText,  // text
    kChat,  // turns; LearnProblem(turns) is ""
  };
  Kind kind = Kind::kPair;
  std::string prompt;
  std::string completion;  // Not empty.
  std::string text;        // Not empty.
  std::vector<Turn> turns;
  int64_t line = 0;  // From 1.
};

// A line that was left out.
struct DroppedLine {
  int64_t line = 0;
  std::string problem;
};

struct RecordFile {
  // Of the option or the first record; not set for a file without records.
  std::optional<DataFormat> format;
  std::vector<Record> records;
  std::vector<DroppedLine> dropped;
};

struct ReadOptions {
  // Not set: the format that the first record has the keys of.
  std::optional<DataFormat> format;
  // Leave out records that are of the format but cannot be learned (an odd
  // number of turns, an empty completion, an unknown role); false: refuse
  // the file.
  bool drop_invalid = false;
  // Stop after as many records; 0: read all.
  int64_t records_max = 0;
};

// Reads a file.
//
// InvalidArgument (DATASET_SCHEMA_INVALID; metadata path, line, problem): the
// first line that is not UTF-8, not a JSON object, or not of the format; and
// the first that cannot be learned, unless those are dropped. Else the errors
// of MappedFile::Open.
absl::StatusOr<RecordFile> ReadRecords(const std::string& path,
                                       const ReadOptions& options);

}  // namespace onegrid::model

#endif  // SERVICES_MODEL_DATASET_FORMAT_H_
