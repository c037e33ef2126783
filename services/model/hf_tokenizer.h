#ifndef SERVICES_MODEL_HF_TOKENIZER_H_
#define SERVICES_MODEL_HF_TOKENIZER_H_

#include <map>
#include <string>

#include "absl/status/statusor.h"
#include "services/model/gguf_reader.h"

namespace onegrid::model {

// The tokenizer of a GGUF file as the files that a Hugging Face model folder
// holds; file name -> contents:
//   tokenizer.json         BPE with byte fallback for `tokenizers`; the merges
//                          are Gemma 4's as they are, for Gemma 3 all splits of
//                          each token into two others, best score first
//   tokenizer_config.json  class, special tokens, chat template if there is one
//   tokenizer.model        SentencePiece model, for converters that want it; of
//                          Gemma 3 only, as it has no place for merges
// Ids equal those of Tokenizer::Encode with parse_control. About 40 MB and some
// seconds for 262,144 tokens. Errors: those of VocabularyFromGguf.
absl::StatusOr<std::map<std::string, std::string>> HfTokenizerFiles(
    const GgufFile& file);

}  // namespace onegrid::model

#endif  // SERVICES_MODEL_HF_TOKENIZER_H_
