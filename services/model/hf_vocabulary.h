#ifndef SERVICES_MODEL_HF_VOCABULARY_H_
#define SERVICES_MODEL_HF_VOCABULARY_H_

#include <cstdint>
#include <map>
#include <string>

#include "absl/status/statusor.h"
#include "services/model/gguf_value.h"
#include "services/model/sentencepiece_model.h"

namespace onegrid::model {

// The tokenizer of a Hugging Face model folder.
struct HfVocabulary {
  Vocabulary vocabulary;
  std::string chat_template;  // empty if there is none
};

// Reads tokenizer.model and, where they are, tokenizer_config.json and
// chat_template.jinja, as llama.cpp's converter does: the added tokens of the
// configuration, and those that look like it, become control or user-defined
// tokens, and a vocabulary shorter than `vocab_size` (rows of the embedding)
// is filled up with unused tokens "[PAD<id>]".
// NotFound: no tokenizer.model. DataLoss (CORRUPT_FILE): a file that is not
// what its name says, or more tokens than vocab_size. Unimplemented: those of
// VocabularyFromModelProto.
absl::StatusOr<HfVocabulary> ReadHfVocabulary(const std::string& folder,
                                              int64_t vocab_size);

// The tokenizer.* metadata of a GGUF file.
std::map<std::string, GgufValue> TokenizerMetadata(
    const HfVocabulary& tokenizer);

}  // namespace onegrid::model

#endif  // SERVICES_MODEL_HF_VOCABULARY_H_
