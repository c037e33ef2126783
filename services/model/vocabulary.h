#ifndef SERVICES_MODEL_VOCABULARY_H_
#define SERVICES_MODEL_VOCABULARY_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace onegrid::model {

// Token types, numbered alike in GGUF and in SentencePiece.
enum class TokenType : int32_t {
  kNormal = 1,
  kUnknown = 2,
  kControl = 3,
  kUserDefined = 4,
  kUnused = 5,
  kByte = 6,
};

// How text becomes tokens.
enum class TokenizerKind {
  kScores,  // Gemma 3, "llama" in GGUF: what makes the best token merges first
  kMerges,  // Gemma 4, "gemma4" in GGUF: what a list names first merges first
};

struct VocabularyToken {
  std::string text;  // as in the GGUF file: spaces are U+2581 in normal tokens
                     // and plain in user-defined ones
  float score;
  TokenType type;
};

// Ids of two tokens and of the token that they merge into.
struct VocabularyMerge {
  int32_t left;
  int32_t right;
  int32_t joined;
};

// The score of tokens whose score means nothing, as converters write it.
inline constexpr float kNoScore = -1000.0f;

// The vocabulary of a BPE tokenizer with byte fallback. The index of a token is
// its id.
struct Vocabulary {
  TokenizerKind kind = TokenizerKind::kScores;
  std::vector<VocabularyToken> tokens;
  std::vector<VocabularyMerge> merges;  // first to last; empty for kScores
  int32_t bos_id = -1;
  int32_t eos_id = -1;
  int32_t unknown_id = -1;
  int32_t pad_id = -1;
  int32_t mask_id = -1;  // -1: none, and always for kScores
  // Tokens that are never to be generated (Gemma 4 12B).
  std::vector<int32_t> suppressed;
};

// DataLoss (CORRUPT_FILE), naming `path` and the token as `list`[id]: an empty
// text, two tokens of one text, a score that is not finite, an unknown type,
// not all 256 byte tokens, or for kMerges a text that is not UTF-8.
absl::Status CheckTokens(const std::string& path, absl::string_view list,
                         const Vocabulary& vocabulary);

// DataLoss (CORRUPT_FILE): the unknown token, whose id must be below the number
// of tokens, is that of a byte, which would then have none.
absl::Status CheckUnknown(const std::string& path,
                          const Vocabulary& vocabulary);

// The byte of a token text "<0x00>" to "<0xFF>" (upper-case), else -1.
int ByteOfToken(const std::string& text);

// `text` with each space written as U+2581, and the reverse.
std::string EscapeSpaces(const std::string& text);
std::string UnescapeSpaces(const std::string& text);

}  // namespace onegrid::model

#endif  // SERVICES_MODEL_VOCABULARY_H_
