#ifndef SERVICES_MODEL_HF_VOCABULARY_H_
#define SERVICES_MODEL_HF_VOCABULARY_H_

#include <cstdint>
#include <map>
#include <string>

#include "absl/status/statusor.h"
#include "services/model/gguf_value.h"
#include "services/model/vocabulary.h"

namespace onegrid::model {

// The tokenizer of a Hugging Face model folder.
struct HfVocabulary {
  Vocabulary vocabulary;
  std::string chat_template;  // empty if there is none
};

// Reads the tokenizer as llama.cpp's converter does:
// - Of Gemma 3, tokenizer.model: the added tokens of tokenizer_config.json, and
//   those that look like it, become control or user-defined tokens. Without it,
//   as newer versions of transformers save a model, tokenizer.json, whose
//   merges give the order of the scores (ScoreByMerges): the same ids.
// - Of Gemma 4, which has none, tokenizer.json (VocabularyFromTokenizerJson);
//   tokenizer_config.json may name other bos, eos, pad and mask tokens.
// The chat template is chat_template.jinja or that of tokenizer_config.json. A
// vocabulary shorter than `vocab_size` (rows of the embedding) is filled up
// with unused tokens "[PAD<id>]".
// NotFound: neither tokenizer.model nor tokenizer.json.
// DataLoss (CORRUPT_FILE): a file that is not what its name says, or more
// tokens than vocab_size. Unimplemented: those of VocabularyFromModelProto,
// VocabularyFromTokenizerJson and ScoreByMerges.
absl::StatusOr<HfVocabulary> ReadHfVocabulary(const std::string& folder,
                                              int64_t vocab_size);

// The tokenizer.* metadata of a GGUF file.
std::map<std::string, GgufValue> TokenizerMetadata(
    const HfVocabulary& tokenizer);

}  // namespace onegrid::model

#endif  // SERVICES_MODEL_HF_VOCABULARY_H_
