#include "services/finetuner/example_reader.h"

#include <utility>

#include "services/common/error_info.h"
#include "services/model/jsonl_dataset.h"

namespace onegrid::finetuner {

TokenizedExample TokenizeExample(const model::Tokenizer& tokenizer,
                                 const std::string& prompt,
                                 const std::string& completion) {
  TokenizedExample example;
  example.tokens = tokenizer.Encode(prompt, /*add_bos=*/true,
                                    /*parse_control=*/false);
  const auto start = static_cast<int64_t>(example.tokens.size());
  const std::vector<int32_t> ids =
      tokenizer.Encode(completion, /*add_bos=*/false, /*parse_control=*/false);
  example.tokens.insert(example.tokens.end(), ids.begin(), ids.end());
  example.tokens.push_back(tokenizer.eos());
  example.labels = {{start, static_cast<int64_t>(example.tokens.size())}};
  return example;
}

absl::StatusOr<std::vector<TokenizedExample>> ReadExamples(
    const std::string& path, const model::Tokenizer& tokenizer, int64_t limit) {
  ASSIGN_OR_RETURN(const std::vector<model::Example> lines,
                   model::ReadJsonl(path));
  std::vector<TokenizedExample> examples;
  for (const model::Example& line : lines) {
    if (limit > 0 && static_cast<int64_t>(examples.size()) == limit) break;
    examples.push_back(
        TokenizeExample(tokenizer, line.prompt, line.completion));
  }
  return examples;
}

}  // namespace onegrid::finetuner
