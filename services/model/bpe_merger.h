#ifndef SERVICES_MODEL_BPE_MERGER_H_
#define SERVICES_MODEL_BPE_MERGER_H_

#include <cstdint>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/string_view.h"
#include "services/model/sentencepiece_model.h"

namespace onegrid::model {

// SentencePiece's BPE with byte fallback, for text from which control and
// user-defined tokens were cut out before: characters are joined pair by pair,
// the pair with the highest score first, of equals the leftmost, as long as the
// joined text is a token; characters left that are no token become one byte
// token per byte. The ids equal llama.cpp's (llm_tokenizer_spm).
//
// Own code because Debian's libsentencepiece exports a protobuf of its own: a
// process that also loads libprotobuf, as every gRPC service does, crashes
// before main().
// Thread-safe. Encode is O(n log n).
class BpeMerger {
 public:
  // `vocabulary` must outlive the merger. Every token but the bytes and the
  // unknown one may come out of a merge.
  explicit BpeMerger(const Vocabulary& vocabulary);

  // Appends the ids of `text`, which is UTF-8.
  void Encode(absl::string_view text, std::vector<int32_t>* ids) const;

 private:
  struct Symbol;
  struct Pair;

  void AppendIds(absl::string_view symbol, std::vector<int32_t>* ids) const;

  const Vocabulary& vocabulary_;
  // Views into the vocabulary's texts.
  absl::flat_hash_map<absl::string_view, int32_t> ids_;
  int32_t byte_ids_[256] = {};
};

}  // namespace onegrid::model

#endif  // SERVICES_MODEL_BPE_MERGER_H_
