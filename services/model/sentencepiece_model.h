#ifndef SERVICES_MODEL_SENTENCEPIECE_MODEL_H_
#define SERVICES_MODEL_SENTENCEPIECE_MODEL_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "services/model/gguf_reader.h"

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

struct VocabularyToken {
  std::string text;  // as in the GGUF file: spaces are U+2581 in normal tokens
                     // and plain in user-defined ones
  float score;
  TokenType type;
};

// The vocabulary of a SentencePiece BPE tokenizer with byte fallback. The index
// of a token is its id.
struct Vocabulary {
  std::vector<VocabularyToken> tokens;
  int32_t bos_id;
  int32_t eos_id;
  int32_t unknown_id;
  int32_t pad_id;
};

// Reads and checks tokenizer.ggml.* of a GGUF file: model "llama" without a
// space prefix, arrays of one length, known types, one token per text, all 256
// byte tokens. Errors: Unimplemented (UNSUPPORTED_TOKENIZER), DataLoss or
// those of GgufFile::Get* (CORRUPT_FILE).
absl::StatusOr<Vocabulary> VocabularyFromGguf(const GgufFile& file);

// DataLoss (CORRUPT_FILE), naming `path` and the token as `list`[id]: an empty
// text, two tokens of one text, a score that is not finite, an unknown type, or
// not all 256 byte tokens.
absl::Status CheckTokens(const std::string& path, absl::string_view list,
                         const Vocabulary& vocabulary);

// The byte of a token text "<0x00>" to "<0xFF>" (upper-case), else -1.
int ByteOfToken(const std::string& text);

// `text` with each space written as U+2581, and the reverse.
std::string EscapeSpaces(const std::string& text);
std::string UnescapeSpaces(const std::string& text);

// A serialized sentencepiece.ModelProto (sentencepiece_model.proto, proto2),
// what the model's makers call tokenizer.model: user-defined tokens with their
// spaces escaped, the unknown token by its role. Written field by field because
// the SentencePiece library cannot be linked into a service (bpe_merger.h).
std::string SerializeModelProto(const Vocabulary& vocabulary);

}  // namespace onegrid::model

#endif  // SERVICES_MODEL_SENTENCEPIECE_MODEL_H_
