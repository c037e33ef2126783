#ifndef SERVICES_MODEL_SENTENCEPIECE_MODEL_H_
#define SERVICES_MODEL_SENTENCEPIECE_MODEL_H_

#include <string>

#include "absl/status/statusor.h"
#include "services/model/gguf_reader.h"
#include "services/model/vocabulary.h"

namespace onegrid::model {

// Reads and checks tokenizer.ggml.* of a GGUF file: model "llama" without a
// space prefix, or "gemma4", whose scores are kNoScore whatever the file says;
// arrays of one length, known types, one token per text, all 256 byte tokens,
// merges of tokens into tokens. Errors: Unimplemented (UNSUPPORTED_TOKENIZER),
// DataLoss or those of GgufFile::Get* (CORRUPT_FILE).
absl::StatusOr<Vocabulary> VocabularyFromGguf(const GgufFile& file);

// A serialized sentencepiece.ModelProto of a vocabulary with scores
// (sentencepiece_model.proto, proto2), what the model's makers call
// tokenizer.model: user-defined tokens with their spaces escaped, the unknown
// token by its role. Written field by field because the SentencePiece library
// cannot be linked into a service (bpe_merger.h).
std::string SerializeModelProto(const Vocabulary& vocabulary);

}  // namespace onegrid::model

#endif  // SERVICES_MODEL_SENTENCEPIECE_MODEL_H_
