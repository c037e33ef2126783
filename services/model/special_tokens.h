#ifndef SERVICES_MODEL_SPECIAL_TOKENS_H_
#define SERVICES_MODEL_SPECIAL_TOKENS_H_

#include <bitset>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/strings/string_view.h"
#include "services/model/vocabulary.h"

namespace onegrid::model {

// True for the names of tokens that end what a model generates: "<eos>",
// Gemma 3's "<end_of_turn>", Gemma 4's "<turn|>" and "<|tool_response>", behind
// which a tool answers. llama.cpp goes by the name too.
bool EndsGeneration(absl::string_view name);

// Changes the types of tokens to what llama.cpp makes of them by their names,
// whatever a "gemma4" file says: those that end generation are control tokens,
// "</s>" is a normal one beside "<|tool_response>", else a control token.
// Leaves vocabularies of the kind kScores alone.
void SetTypesByName(Vocabulary* vocabulary);

// Cuts control and user-defined tokens out of text before BpeMerger sees it, in
// llama.cpp's order (tokenizer_st_partition): the longest token text first,
// each everywhere from left to right, then the next on what is left. That is
// not the same as the longest match at each place. Thread-safe.
class SpecialTokens {
 public:
  // A run of plain text (id < 0) or one special token.
  struct Fragment {
    absl::string_view text;
    int32_t id = -1;
  };

  explicit SpecialTokens(const Vocabulary& vocabulary);

  // The fragments of `text` in order; none is empty. With parse_control false
  // the texts of control and unknown tokens, and of end markers of any type
  // ("</s>"), stay plain text. The fragments point into `text`.
  std::vector<Fragment> Split(absl::string_view text, bool parse_control) const;

 private:
  struct Special {
    std::string text;
    int32_t id;
    bool is_control;
  };

  // Indices into specials_ of those that occur in `text`, in cutting order.
  std::vector<size_t> Present(absl::string_view text, bool parse_control) const;

  std::vector<Special> specials_;  // longest first, then by id
  absl::flat_hash_map<std::string, size_t> by_text_;
  std::vector<size_t> lengths_[256];  // of the texts by first byte, ascending
  std::bitset<256> single_bytes_;     // texts of one byte
  std::bitset<65536> byte_pairs_;     // first two bytes of longer texts
};

}  // namespace onegrid::model

#endif  // SERVICES_MODEL_SPECIAL_TOKENS_H_
