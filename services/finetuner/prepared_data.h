// A dataset's files as tokenized examples, checked, with a report.
#ifndef SERVICES_FINETUNER_PREPARED_DATA_H_
#define SERVICES_FINETUNER_PREPARED_DATA_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "services/finetuner/data_options.h"
#include "services/finetuner/data_report.h"
#include "services/finetuner/packing.h"
#include "services/model/tokenizer.h"

namespace onegrid::finetuner {

// One file of a dataset.
struct SplitFile {
  std::string name;  // "train", for messages and the report.
  std::string path;
  int64_t records_max = 0;  // 0: all.
  // Cut examples to sequence_tokens, as training does; false: keep them whole,
  // as scoring does. Text is cut into windows either way.
  bool cut = false;
};

struct PreparedData {
  std::vector<std::vector<TokenizedExample>> splits;  // In the files' order.
  DataReport report;
};

// Reads files of any format (services/model/dataset_format.h). What becomes of
// a record, and which of its tokens are labels:
// - a prompt and a completion: BOS, prompt, completion, EOS; the completion and
//   EOS. Both are tokenized apart, so that the boundary is exact.
// - a conversation: model::ChatTemplate; the text and end of turn of each
//   assistant turn, or only of the last (options.train_on).
// - text: WindowsOf (text_corpus.h); every token but BOS.
// Control tokens that a text spells stay text.
//
// InvalidArgument: the errors of model::ReadRecords; EXAMPLE_TOO_LONG (split,
// line) where cutting leaves no label, unless options.drop_invalid;
// DATASET_SCHEMA_INVALID (split, problem): a split without an example. Others:
// those of model::ChatTemplate::Create, for a file of conversations.
absl::StatusOr<PreparedData> PrepareDataset(const std::vector<SplitFile>& files,
                                            const DataOptions& options,
                                            const model::Tokenizer& tokenizer,
                                            int64_t sequence_tokens);

}  // namespace onegrid::finetuner

#endif  // SERVICES_FINETUNER_PREPARED_DATA_H_
