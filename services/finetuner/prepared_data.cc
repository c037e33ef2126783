#include "services/finetuner/prepared_data.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "services/common/error_info.h"
#include "services/common/files.h"
#include "services/finetuner/example_reader.h"
#include "services/finetuner/text_corpus.h"
#include "services/model/chat_template.h"
#include "services/model/dataset_format.h"

namespace onegrid::finetuner {
namespace {

using model::Record;

constexpr char kPairTemplate[] = "<bos>{prompt}{completion}<eos>";
constexpr char kTextTemplate[] = "<bos>{text}";

// Makes examples of the records of one file.
class SplitPreparer {
 public:
  SplitPreparer(const SplitFile& file, const DataOptions& options,
                const model::Tokenizer& tokenizer, int64_t sequence_tokens)
      : file_(file),
        options_(options),
        tokenizer_(tokenizer),
        sequence_tokens_(sequence_tokens) {}

  absl::Status Run();

  std::vector<TokenizedExample> TakeExamples() { return std::move(examples_); }
  SplitReport TakeReport() { return std::move(report_); }

 private:
  absl::Status AddRecord(const Record& record);
  // Cuts an example that is too long and keeps it if a label is left.
  absl::Status AddWhole(TokenizedExample example, int64_t line);
  void AddText(const Record& record);
  absl::StatusOr<TokenizedExample> EncodeChat(const Record& record);
  void Keep(TokenizedExample example);

  const SplitFile& file_;
  const DataOptions& options_;
  const model::Tokenizer& tokenizer_;
  const int64_t sequence_tokens_;
  std::optional<model::ChatTemplate> chat_;
  std::vector<TokenizedExample> examples_;
  SplitReport report_;
};

void SplitPreparer::Keep(TokenizedExample example) {
  ++report_.examples;
  report_.tokens += static_cast<int64_t>(example.tokens.size());
  for (const TokenSpan& span : example.labels) {
    report_.label_tokens += span.size();
  }
  examples_.push_back(std::move(example));
}

// Keeps the first `count` tokens and the labels among them.
void Truncate(int64_t count, TokenizedExample* example) {
  example->tokens.resize(static_cast<size_t>(count));
  std::vector<TokenSpan> kept;
  for (const TokenSpan& span : example->labels) {
    if (span.begin < count) {
      kept.push_back({span.begin, std::min(span.end, count)});
    }
  }
  example->labels = std::move(kept);
}

absl::Status SplitPreparer::AddWhole(TokenizedExample example, int64_t line) {
  const auto tokens = static_cast<int64_t>(example.tokens.size());
  if (file_.cut && tokens > sequence_tokens_) {
    const int64_t first = example.labels.front().begin;
    Truncate(sequence_tokens_, &example);
    if (example.labels.empty()) {
      const std::string problem = absl::StrCat(
          "no label is left in sequence_tokens = ", sequence_tokens_);
      if (options_.drop_invalid) {
        report_.dropped[problem].Add(line);
        return absl::OkStatus();
      }
      return common::MakeError(
          absl::StatusCode::kInvalidArgument, "EXAMPLE_TOO_LONG",
          absl::StrCat(file_.path, ": line ", line, ": ", problem,
                       ": the first to be predicted is token ", first, " of ",
                       tokens),
          {{"split", file_.name}, {"line", absl::StrCat(line)}});
    }
    report_.truncated.Add(line);
  }
  ++report_.records;
  report_.record_tokens.push_back(tokens);
  Keep(std::move(example));
  return absl::OkStatus();
}

void SplitPreparer::AddText(const Record& record) {
  std::vector<TokenizedExample> windows =
      WindowsOf(tokenizer_, record.text, sequence_tokens_);
  if (windows.size() > 1) report_.windowed.Add(record.line);
  ++report_.records;
  int64_t tokens = 1;
  for (TokenizedExample& window : windows) {
    tokens += static_cast<int64_t>(window.tokens.size()) - 1;
    Keep(std::move(window));
  }
  report_.record_tokens.push_back(tokens);
}

absl::StatusOr<TokenizedExample> SplitPreparer::EncodeChat(
    const Record& record) {
  if (!chat_.has_value()) {
    ASSIGN_OR_RETURN(chat_, model::ChatTemplate::Create(tokenizer_));
    report_.templates.emplace(chat_->name(),
                              model::ChatTemplate::Digest(chat_->format()));
  }
  model::ChatTokens chat = chat_->Encode(record.turns, /*open_answer=*/false);
  TokenizedExample example;
  example.tokens = std::move(chat.tokens);
  for (const model::AnswerTokens& answer : chat.answers) {
    if (!record.turns[static_cast<size_t>(answer.turn)].learn) continue;
    if (options_.train_on == TrainOn::kLast) example.labels.clear();
    example.labels.push_back({answer.begin, answer.end});
  }
  return example;
}

absl::Status SplitPreparer::AddRecord(const Record& record) {
  switch (record.kind) {
    case Record::Kind::kPair:
      report_.templates.emplace("prompt_completion",
                                common::Sha256Of(kPairTemplate));
      return AddWhole(
          TokenizeExample(tokenizer_, record.prompt, record.completion),
          record.line);
    case Record::Kind::kText:
      report_.templates.emplace("text", common::Sha256Of(kTextTemplate));
      AddText(record);
      return absl::OkStatus();
    case Record::Kind::kChat: {
      ASSIGN_OR_RETURN(TokenizedExample example, EncodeChat(record));
      return AddWhole(std::move(example), record.line);
    }
  }
  return absl::OkStatus();
}

absl::Status SplitPreparer::Run() {
  model::ReadOptions read;
  read.format = options_.format;
  read.drop_invalid = options_.drop_invalid;
  read.records_max = file_.records_max;
  ASSIGN_OR_RETURN(const model::RecordFile records,
                   model::ReadRecords(file_.path, read));
  if (records.format.has_value()) {
    report_.format = model::FormatName(*records.format);
  }
  for (const model::DroppedLine& line : records.dropped) {
    report_.dropped[line.problem].Add(line.line);
  }
  for (const Record& record : records.records) {
    RETURN_IF_ERROR(AddRecord(record));
  }
  if (!examples_.empty()) return absl::OkStatus();
  std::string problem = "no example";
  if (!report_.dropped.empty()) {
    const auto& [why, list] = *report_.dropped.begin();
    absl::StrAppend(&problem, ": ", report_.dropped_count(),
                    " lines were dropped, line ", list.lines.front(), ": ",
                    why);
  }
  return common::MakeError(absl::StatusCode::kInvalidArgument,
                           "DATASET_SCHEMA_INVALID",
                           absl::StrCat("split ", file_.name, " has ", problem),
                           {{"split", file_.name}, {"problem", problem}});
}

}  // namespace

absl::StatusOr<PreparedData> PrepareDataset(const std::vector<SplitFile>& files,
                                            const DataOptions& options,
                                            const model::Tokenizer& tokenizer,
                                            int64_t sequence_tokens) {
  PreparedData data;
  data.report.sequence_tokens = sequence_tokens;
  data.report.train_on = TrainOnName(options.train_on);
  for (const SplitFile& file : files) {
    SplitPreparer preparer(file, options, tokenizer, sequence_tokens);
    RETURN_IF_ERROR(preparer.Run());
    data.splits.push_back(preparer.TakeExamples());
    data.report.splits.emplace(file.name, preparer.TakeReport());
  }
  return data;
}

}  // namespace onegrid::finetuner
