#ifndef SERVICES_MODEL_TOKENIZER_JSON_H_
#define SERVICES_MODEL_TOKENIZER_JSON_H_

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "services/model/vocabulary.h"

namespace onegrid::model {

// The vocabulary, of the kind kMerges, of a Hugging Face tokenizer.json such as
// Gemma 4's: BPE with byte fallback, spaces written as U+2581, merges as
// "left right" or ["left", "right"]. Token types are those that llama.cpp's
// converter gives: special added tokens are control tokens, but for the seven
// around tool calls and channels, which stay visible; other added tokens are
// user-defined. "[PAD<id>]" at its id is unused. Ids come from the names
// "<bos>", "<eos>", "<pad>" and "<mask>" (-1 without the last) and from
// unk_token. Added tokens with ids from `vocab_size` are left out.
//
// The text is outside input; `path` is for messages. DataLoss (CORRUPT_FILE):
// not such a file, ids that are not 0 to n-1 or not below vocab_size, what
// CheckTokens and ResolveMerges refuse. Unimplemented (UNSUPPORTED_TOKENIZER):
// another model, normalizer or splitting, or tokens that match with conditions.
absl::StatusOr<Vocabulary> VocabularyFromTokenizerJson(absl::string_view text,
                                                       const std::string& path,
                                                       int64_t vocab_size);

}  // namespace onegrid::model

#endif  // SERVICES_MODEL_TOKENIZER_JSON_H_
