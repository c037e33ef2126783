#ifndef SERVICES_MODEL_TOKENIZER_H_
#define SERVICES_MODEL_TOKENIZER_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "services/model/bpe_merger.h"
#include "services/model/gguf_reader.h"
#include "services/model/special_tokens.h"
#include "services/model/vocabulary.h"

namespace onegrid::model {

// The tokenizers of Gemma 3 and Gemma 4: BpeMerger merges, this class cuts out
// control and user-defined tokens first. The ids equal llama.cpp's and, for
// Gemma 4, those of Hugging Face's tokenizers (tests/evidence/tokenizers).
// Thread-safe.
class Tokenizer {
 public:
  // Errors: those of VocabularyFromGguf. Takes about half a second for 262,144
  // tokens.
  static absl::StatusOr<std::unique_ptr<Tokenizer>> FromGguf(
      const GgufFile& file);

  // Of a vocabulary that VocabularyFromGguf or ReadHfVocabulary has checked.
  explicit Tokenizer(Vocabulary vocabulary);

  // Ids of `text`. add_bos puts the begin-of-sequence token first.
  // parse_control: the texts of control tokens ("<end_of_turn>") become those
  // tokens; false is right for user data. User-defined tokens (Gemma 3's runs
  // of newlines and spaces and HTML tags, Gemma 4's "<|channel>") are always
  // tokens. Bytes that are not UTF-8: see BpeMerger.
  std::vector<int32_t> Encode(absl::string_view text, bool add_bos,
                              bool parse_control) const;

  // The text of `ids`: the pieces joined. Control tokens are left out; ids out
  // of range too. The result need not be UTF-8 if `ids` ends within a
  // character.
  std::string Decode(absl::Span<const int32_t> ids) const;

  // The bytes that token `id` adds to a text: U+2581 as a space, the byte of a
  // byte token, nothing for a control token. Empty for an id out of range.
  std::string Piece(int32_t id) const;

  // The name of a token in the vocabulary ("<end_of_turn>", "<0x0A>", "▁the").
  // Empty for an id out of range.
  const std::string& Name(int32_t id) const;

  // True for the file's end-of-sequence token and for EndsGeneration.
  bool IsEndOfGeneration(int32_t id) const {
    return end_of_generation_.contains(id);
  }

  int64_t vocab_size() const { return vocabulary_.tokens.size(); }
  int32_t bos() const { return vocabulary_.bos_id; }
  int32_t eos() const { return vocabulary_.eos_id; }
  int32_t pad() const { return vocabulary_.pad_id; }
  // As it was given, but for SetTypesByName.
  const Vocabulary& vocabulary() const { return vocabulary_; }

 private:
  const Vocabulary vocabulary_;
  const SpecialTokens specials_;
  const BpeMerger merger_;
  absl::flat_hash_set<int32_t> end_of_generation_;
};

}  // namespace onegrid::model

#endif  // SERVICES_MODEL_TOKENIZER_H_
