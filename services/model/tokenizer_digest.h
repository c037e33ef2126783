// A fingerprint of the tokenizer in a GGUF.
#ifndef SERVICES_MODEL_TOKENIZER_DIGEST_H_
#define SERVICES_MODEL_TOKENIZER_DIGEST_H_

#include <string>

#include "absl/status/statusor.h"
#include "services/model/gguf_reader.h"
#include "services/model/vocabulary.h"

namespace onegrid::model {

// Lower-case hex SHA-256 over the vocabulary in id order: for each token its
// length (u64), its bytes, its score (f32) and its type (i32), little-endian.
// For kMerges each score counts as kNoScore, and the number of merges (u64)
// and for each merge the length (u64) and bytes of "left right" follow.
// Errors: INVALID_ARGUMENT or NOT_FOUND when the file has no such arrays or
// they differ in length.
absl::StatusOr<std::string> TokenizerDigest(const GgufFile& file);

// The same of a vocabulary that is in memory.
std::string TokenizerDigest(const Vocabulary& vocabulary);

}  // namespace onegrid::model

#endif  // SERVICES_MODEL_TOKENIZER_DIGEST_H_
