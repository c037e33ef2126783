#ifndef SERVICES_MODEL_BPE_MERGER_H_
#define SERVICES_MODEL_BPE_MERGER_H_

#include <cstdint>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/string_view.h"
#include "services/model/vocabulary.h"

namespace onegrid::model {

// BPE with byte fallback, for text from which control and user-defined tokens
// were cut out before. Spaces become U+2581, then characters are joined pair by
// pair; characters left that are no token become one byte token per byte.
//   kScores  Of the pairs whose joined text is a token, the token with the best
//            score goes first, of equals the leftmost.
//   kMerges  Of the pairs that are on the list of merges, the first on the list
//            goes first, of equals the leftmost. Nothing joins across the ends
//            of a run of newlines, and a run that is a token is that token.
// The ids equal llama.cpp's (llm_tokenizer_spm; llm_tokenizer_bpe for gemma4),
// those of bytes that are not UTF-8 too: with kScores each becomes a byte token
// (so does what follows the first byte of a character cut short), with kMerges
// ReplaceInvalidUtf8 goes first.
//
// Own code because Debian's libsentencepiece exports a protobuf of its own: a
// process that also loads libprotobuf, as every gRPC service does, crashes
// before main().
// Thread-safe. Encode is O(n log n).
class BpeMerger {
 public:
  // `vocabulary` must outlive the merger. Every token but the bytes and the
  // unknown one may come out of a merge by score.
  explicit BpeMerger(const Vocabulary& vocabulary);

  // Appends the ids of `text`.
  void Encode(absl::string_view text, std::vector<int32_t>* ids) const;

 private:
  struct Symbol;
  struct Pair;
  struct Merge {
    int32_t rank;
    int32_t joined;
  };

  // -1 if `text` is no token.
  int32_t IdOf(absl::string_view text) const;
  // The token that two neighbours join into and how soon; false if into none.
  bool Join(const Symbol& left, const Symbol& right, Pair* pair) const;
  // Encode, of text whose spaces are escaped; for kMerges also of a run of
  // newlines or of other characters.
  void EncodeEscaped(absl::string_view text, std::vector<int32_t>* ids) const;

  const Vocabulary& vocabulary_;
  // Views into the vocabulary's texts.
  absl::flat_hash_map<absl::string_view, int32_t> ids_;
  absl::flat_hash_map<std::pair<int32_t, int32_t>, Merge> merges_;
  int32_t byte_ids_[256] = {};
};

}  // namespace onegrid::model

#endif  // SERVICES_MODEL_BPE_MERGER_H_
