// Examples from JSONL files, tokenized for training and scoring.
#ifndef SERVICES_FINETUNER_EXAMPLE_READER_H_
#define SERVICES_FINETUNER_EXAMPLE_READER_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "services/finetuner/packing.h"
#include "services/model/tokenizer.h"

namespace onegrid::finetuner {

// BOS, tokens of the prompt, tokens of the completion, EOS. Prompt and
// completion are tokenized apart, so that the boundary between them is exact.
TokenizedExample TokenizeExample(const model::Tokenizer& tokenizer,
                                 const std::string& prompt,
                                 const std::string& completion);

// The first `limit` examples of a file (0: all). Errors of model::ReadJsonl.
absl::StatusOr<std::vector<TokenizedExample>> ReadExamples(
    const std::string& path, const model::Tokenizer& tokenizer, int64_t limit);

}  // namespace onegrid::finetuner

#endif  // SERVICES_FINETUNER_EXAMPLE_READER_H_
